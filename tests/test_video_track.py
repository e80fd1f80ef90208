"""Training of trackers, and the commands of trained ones.

Small configs on two virtual devices. One run is uninterrupted; another is
stopped and resumed, and must end with equal results.
"""

import csv
import functools
import json
import re
import shutil

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from configs import occlusion_track as occlusion_config
from configs import otb_track as otb_config
from training import app
from training import parallel
from video import data
from video import frames as frames_lib
from video import metrics
from video import track
from video.sources import tracks as tracks_lib
from video.synthetic import occlusion_track
from video.synthetic import photo_track
from video.tracking import baselines
from video.tracking import boxes as boxes_lib
from video.tracking import clips
from video.tracking import evaluation
from video.tracking import examples as examples_lib
from video.tracking import inference
from video.tracking import losses
from video.tracking import sequences

SMALL = {
  'model.side': 8,
  'model.filters': (3, 4),
  'model.skips': (0, 2),
  'model.dense': 6,
  'model.features': 5,
  'optimizer.learning_rate': 0.01,
  'optimizer.warmup_steps': 2,
  'self_feeding.start': 3,
  'self_feeding.ramp': 4,
  'batch_size': 4,
  'num_steps': 8,
  'eval_batch_size': 4,
  'log_every': 2,
  'checkpoint_every': 3,
  'eval_every': 5,
}
SEQUENCES = {
  'data.sequences.train': 6,
  'data.sequences.validation': 3,
  'data.sequences.test': 5,
  'data.num_frames': 6,
  'data.height': 32,
  'data.width': 40,
}
BOX = np.array([12, 10, 9, 7], np.float32)


def small(module=otb_config, **fields):
  """A config in small; in names of `fields`, __ is a dot."""
  names = ('re3',) if module is otb_config else ()
  config = module.get_config(*names)
  fields = {name.replace('__', '.'): value for name, value in fields.items()}
  drawn = SEQUENCES if module is otb_config else {}
  config.update_from_flattened_dict({**SMALL, **drawn, **fields})
  return config


def clip(num_frames=7, seed=0):
  """A patch of noise that moves over another noise: frames, true boxes."""
  rng = np.random.default_rng(seed)
  frames = np.stack([rng.integers(0, 256, (32, 40, 3))] * num_frames)
  patch = rng.integers(0, 256, (7, 9, 3))
  boxes = np.tile(BOX, (num_frames, 1))
  for t in range(num_frames):
    boxes[t, :2] += (2 * t, t)
    x, y = boxes[t, :2].astype(int)
    frames[t, y : y + 7, x : x + 9] = patch
  return frames.astype(np.uint8), boxes


def write_sequence(directory, frames, boxes, separator):
  (directory / 'img').mkdir(parents=True)
  for i, frame in enumerate(frames, start=1):
    Image.fromarray(frame).save(directory / 'img' / f'{i:04d}.png')
  # OTB counts from 1.
  lines = (separator.join(str(x) for x in box + (1, 1, 0, 0)) for box in boxes)
  (directory / 'groundtruth_rect.txt').write_text('\n'.join(lines) + '\n')


@pytest.fixture(autouse=True)
def parsed_flags():
  """As after the command line was read."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope='module')
def otb(tmp_path_factory):
  """Two sequences of OTB's layout, of different lengths."""
  directory = tmp_path_factory.mktemp('otb')
  write_sequence(directory / 'Moving', *clip(7), ',')
  write_sequence(directory / 'Slow', *clip(5, seed=1), '\t')
  return directory


@pytest.fixture(scope='module')
def trained(tmp_path_factory, otb):
  """The run that was left alone."""
  directory = tmp_path_factory.mktemp('track')
  track.train_and_evaluate(small(sequences=str(otb)), directory / 'here')
  # Nothing of a run may depend on where it was.
  return (directory / 'here').rename(directory / 'trained')


def results(workdir):
  entries = json.loads((workdir / 'results.json').read_text())
  return {k: commands.without_times(v) for k, v in entries.items()}


# What is learnt.


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_two_devices_equal_one_computation(share):
  """Searched near the truth, or where the tracker itself had found it.

  The second without a gradient: as if the boxes had been given.
  """
  config = small(
    self_feeding__start=0, self_feeding__ramp=1, self_feeding__max_share=share
  )
  tracker = inference.create(config)
  source = examples_lib.open_split(config, 'train')
  records = [examples_lib.evaluation(source[i]) for i in range(4)]
  batch = {
    name: np.stack([record[name] for record in records])
    for name in ('frames', 'boxes', 'hidden')
  }
  shapes = track.initial_variables(tracker, records[0], config)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes
  )
  key = jax.random.key(5)

  follow = jax.jit(functools.partial(tracker.apply, method='follow'))
  searches = []
  for device in range(2):
    own = jax.random.fold_in(jax.random.fold_in(key, 0), device)
    jitter_key, choice_key = jax.random.split(own)
    half = {name: x[2 * device : 2 * device + 2] for name, x in batch.items()}
    near = boxes_lib.jitter(jitter_key, half['boxes'], **config.jitter)
    followed = follow(variables, half['frames'], half['boxes'][:, 0])
    chosen = jax.random.bernoulli(choice_key, share, (2,))[:, None, None]
    found = jnp.where(chosen, followed, near)
    searches.append(boxes_lib.search_boxes(found))
  search = np.concatenate(searches)
  assert np.abs(search[:, 2:] - batch['boxes'][:, 1:-1]).max() > 0.1

  def loss_of(variables):
    codes = tracker.apply(variables, batch['frames'], search)
    wanted = boxes_lib.encode(batch['boxes'][:, 1:], search[:, 1:])
    return jnp.mean(jnp.minimum(jnp.abs(codes - wanted), 2))

  value, gradient = jax.jit(jax.value_and_grad(loss_of))(variables)
  optimizer = optax.sgd(0.1)
  step = parallel.train_step(
    losses.create(tracker, config), losses.counts, optimizer
  )
  state, update = step(
    parallel.create_state(variables, optimizer),
    parallel.shard(batch),
    parallel.replicate(key),
  )
  np.testing.assert_allclose(update.loss, value, rtol=1e-4)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, variables, gradient)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
    state.params,
    expected['params'],
  )
  means = update.metrics.compute()
  np.testing.assert_allclose(means['error'], value, rtol=1e-4)
  np.testing.assert_allclose(
    means['error'], (means['centre'] + means['size']) / 2, rtol=1e-4
  )


def test_the_curriculum():
  shares = [
    float(losses.self_fed_share(step, start=2, ramp=2, max_share=0.8))
    for step in range(6)
  ]
  assert shares == pytest.approx([0, 0, 0.4, 0.8, 0.8, 0.8])


def test_examples_are_mirrored_with_their_boxes():
  """What is in the box stays in it, but for the order of colours."""
  record = photo_track.PhotoTrack(
    'train', count=1, num_frames=4, height=32, width=40
  )[0]
  record['boxes'] = np.round(record['boxes'])

  def content(record):
    x, y, width, height = record['boxes'][0].astype(int)
    pixels = record['frames'][0, y : y + height, x : x + width]
    return np.sort(pixels.ravel())

  seen = set()
  for seed in range(20):
    rng = np.random.default_rng(seed)
    example = examples_lib.training(record, rng)
    assert example['frames'].shape == record['frames'].shape
    np.testing.assert_array_equal(content(example), content(record))
    seen.add(tuple(example['boxes'][0]))
  assert len(seen) == 4


# The runs.


def test_a_stopped_run_equals_the_uninterrupted(
  trained, otb, tmp_path, monkeypatch
):
  config = small(sequences=str(otb))
  monkeypatch.setattr(app, 'stopping', lambda step: step == 4)
  with pytest.raises(app.Stopped):
    track.train_and_evaluate(config, tmp_path)
  assert max(commands.saved_steps(tmp_path)) == 4
  assert not (tmp_path / 'results.json').exists()
  monkeypatch.undo()
  track.train_and_evaluate(app.read_config(tmp_path), tmp_path)
  commands.assert_same_training(tmp_path, trained)
  assert results(tmp_path) == results(trained)


def test_what_is_reported(trained):
  lines = commands.lines(trained, 'train/')
  assert [line['step'] for line in lines] == [2, 3, 4, 5, 6, 8]
  for line in lines:
    assert line['train/total_loss'] == pytest.approx(line['train/error'])
  assert lines[0]['train/self_fed'] == 0
  evaluated = commands.lines(trained, 'validation/')
  assert [line['step'] for line in evaluated] == [5, 8]


def test_results_are_those_of_the_boxes(trained):
  """Recomputed from the records, a sequence at a time."""
  entry = results(trained)['test']
  loaded = inference.restore(trained)
  config = loaded.config
  source = examples_lib.open_split(config, 'test')
  assert entry['num_sequences'] == len(source) == 5
  assert entry['seed'] == 0 and entry['step'] in (5, 8)
  assert entry['data']['fingerprint'] == examples_lib.fingerprint(config)
  trackers = {
    'tracker': inference.Tracker.from_trained(loaded),
    'state_zeroed': inference.Tracker(
      loaded.network.clone(zero_state=True),
      loaded.variables,
      longest_side=config.longest_side,
    ),
    'still_box': baselines.StillBox(),
    'cross_correlation': baselines.CrossCorrelation(),
  }
  found = {'tracker': entry['scores'], **entry['others']}
  assert found.keys() == trackers.keys()
  records = list(source)
  truths = [record['boxes'] for record in records]
  for name, tracker in trackers.items():
    boxes = [
      baselines.follow(tracker, record['frames'], record['boxes'][0])
      for record in records
    ]
    expected = metrics.one_pass(boxes, truths).numbers()
    for metric, value in expected.items():
      # A box on a threshold may fall to either side.
      assert found[name][metric] == pytest.approx(value, abs=0.02)
  with Image.open(trained / 'results' / 'test.png') as image:
    assert image.width > 6 * 40


def test_scores_before_while_and_after_it_is_hidden():
  """A tracker that stays until the thing is gone, and then is right."""
  _, truth = clip(9)
  hidden = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0], bool)
  boxes = truth.copy()
  boxes[3:5] += 100
  grey = np.full(9, 100.0)
  found = evaluation.scores(
    [boxes, truth], [truth] * 2, [hidden] * 2, [grey] * 2
  )
  assert found['before/success_rate_50'] == 1
  assert found['after/success_rate_50'] == 1
  assert found['hidden/success_rate_50'] == pytest.approx((1 / 3 + 1) / 2)
  assert found['success_rate_50'] == pytest.approx((6 / 8 + 1) / 2)
  visible = evaluation.scores([truth], [truth], [hidden & False], [grey])
  assert set(visible) == {
    *evaluation.METRICS,
    *(f'before/{name}' for name in evaluation.METRICS),
  }


def test_scores_after_a_blackout_and_behind_a_screen():
  """Sequences are classified by the brightness of their hidden frames."""
  records = [occlusion_track.example('test', i) for i in range(12)]
  truths = [record['boxes'] for record in records]
  hidden = [record['hidden'] for record in records]
  brightness = [record['frames'].mean(axis=(1, 2, 3)) for record in records]
  black = [record['frames'][record['hidden']].max() < 60 for record in records]
  assert 2 < sum(black) < 10
  right = iter(np.linspace(0, 1, 12).round(1) > 0.4)
  boxes = [truth + (0 if next(right) else 100) for truth in truths]
  found = evaluation.scores(boxes, truths, hidden, brightness)
  scored = {}
  for name, kind in (('blackout', True), ('screen', False)):
    of_kind = [i for i in range(12) if black[i] == kind]
    scored[name] = evaluation.scores(
      *(
        [values[i] for i in of_kind]
        for values in (boxes, truths, hidden, brightness)
      )
    )
    for metric in evaluation.METRICS:
      assert found[f'{name}/{metric}'] == scored[name][f'after/{metric}']
  assert 'screen/success_auc' not in scored['blackout']
  assert 'blackout/success_auc' not in scored['screen']
  assert scored['blackout'] != scored['screen']


@pytest.mark.parametrize('cell', ['lstm', 'none'])
def test_the_embedded_default_trains(tmp_path, monkeypatch, cell):
  """In small: some of its sequences, which are not written."""
  counts = dict(train=4, validation=2, test=3)
  monkeypatch.setattr(
    examples_lib.data,
    'open_split',
    lambda name, split, data_dir: [
      occlusion_track.example(split, i) for i in range(counts[split])
    ],
  )
  monkeypatch.setattr(
    examples_lib.data, 'fingerprint', lambda name, data_dir: name
  )
  config = small(
    occlusion_config, num_steps=2, model__cell=cell, self_feeding__start=1
  )
  track.train_and_evaluate(config, tmp_path)
  entry = results(tmp_path)['test']
  others = {'still_box', 'cross_correlation'}
  assert set(entry['others']) == others | (
    {'state_zeroed'} if cell == 'lstm' else set()
  )
  # In each of them the thing is hidden, one way or the other, and seen again.
  for part in ('before', 'hidden', 'after', 'blackout', 'screen'):
    assert f'{part}/success_rate_50' in entry['scores']
  assert entry['others']['still_box']['after/success_rate_50'] < 0.5


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('batch_size', 3, 'batch_size=3 must be a multiple of the 2 devices'),
    ('best_metric', 'iou', "best_metric='iou' is none of success_auc, "),
    ('data.name', 'otb', "data.name='otb' must be occlusion_track, "),
    ('model.cell', 'gru', "cell='gru' is none of lstm, peephole, none"),
    ('data.height', 8, '32 x 32 pixels'),
    ('data.images', 'nowhere', "images='nowhere' is no"),
  ],
)
def test_wrong_fields_are_named_at_once(tmp_path, field, value, message):
  config = small()
  with config.ignore_type():
    config.update_from_flattened_dict({field: value})
  with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
    track.train_and_evaluate(config, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


# Real sequences.


def test_sequences_are_scored_beside_what_learns_nothing(trained, otb):
  """The correlation finds what does not change; the still box is counted."""
  entry = results(trained)['sequences']
  assert set(entry['sequences']) == {'Moving', 'Slow'}
  assert entry['scores']['cross_correlation']['success_rate_50'] == 1
  for name, length in (('Moving', 7), ('Slow', 5)):
    truth = clip(length)[1]
    expected = metrics.one_pass([np.tile(BOX, (length, 1))], [truth]).numbers()
    found = dict(entry['sequences'][name]['still_box'])
    restarted = found.pop('restarted')
    assert found == pytest.approx(expected)
    # After five frames it is 10 pixels beside what is 9 wide.
    assert restarted['failures'] == (1 if length == 7 else 0)
    saved = json.loads(
      (trained / 'results' / 'sequences' / f'{name}.json').read_text()
    )
    assert np.array(saved['tracker']).shape == (length, 4)
    np.testing.assert_array_equal(saved['still_box'], np.tile(BOX, (length, 1)))
    np.testing.assert_allclose(saved['cross_correlation'], truth)
  # Over both: Slow never fails.
  for name, total in entry['restarted'].items():
    runs = [found[name]['restarted'] for found in entry['sequences'].values()]
    assert total['failures'] == sum(run['failures'] for run in runs)
    known = [run['accuracy'] for run in runs if run['accuracy'] is not None]
    assert total['accuracy'] == (np.mean(known) if known else None)
  assert entry['restarted']['still_box']['failures'] == 1
  assert entry['path'] == str(otb)
  first = entry['scores_with_first_frame']['still_box']['success_rate_50']
  assert first > entry['scores']['still_box']['success_rate_50']
  for name in ('Moving', 'Slow', 'success_and_precision'):
    with Image.open(trained / 'results' / 'sequences' / f'{name}.png') as file:
      assert min(file.size) > 30


def test_published_sequences(shared):
  """Through all frames; where the truth is, is where the reader says."""
  tracks, problems = tracks_lib.read(shared / 'data' / 'otb')
  assert not problems
  assert {t.id: len(t.boxes) for t in tracks} == {'Crossing': 120, 'Skiing': 81}
  for found in tracks:
    frames = sequences.Frames(found.paths)
    boxes = {
      name: baselines.follow(make(), frames, found.boxes[0])
      for name, make in baselines.BASELINES.items()
    }
    scores = {
      name: metrics.one_pass([track], [found.boxes]).numbers()
      for name, track in boxes.items()
    }
    assert scores['still_box']['success_auc'] < 0.2


# Other people's clips.


@pytest.mark.parametrize('kind', ['folder', 'array', 'video'])
@pytest.mark.parametrize('output', ['out.png', 'out.mp4'])
def test_a_clip_is_followed(trained, otb, tmp_path, capsys, kind, output):
  """The boxes that are saved are those of one pass."""
  frames, _ = clip()
  path = otb / 'Moving' / 'img'
  if kind == 'array':
    path = tmp_path / 'clip.npy'
    np.save(path, frames)
  elif kind == 'video':
    path = tmp_path / 'clip.mp4'
    frames_lib.write(path, frames)
    frames = frames_lib.read(path)
  output = tmp_path / output
  with flagsaver.flagsaver(
    (track._BOX, '12,10,9,7'), (track._OUTPUT, str(output))
  ):
    assert track.use(trained, [str(path)]) == 0
  boxes_path = tmp_path / 'out.csv'
  assert capsys.readouterr().out.splitlines() == [str(output), str(boxes_path)]
  with boxes_path.open() as file:
    header, *rows = csv.reader(file)
  assert header == ['frame', 'x', 'y', 'width', 'height']
  expected = baselines.follow(inference.load(trained), frames, BOX)
  np.testing.assert_allclose(
    np.array(rows, float),
    np.concatenate([np.arange(7)[:, None], expected], axis=1),
    atol=0.006,
  )
  if output.suffix == '.mp4':
    assert frames_lib.read(output).shape == (7, 160, 200, 3)
  else:
    with Image.open(output) as image:
      assert image.width > 7 * 200


def test_boxes_as_json(trained, tmp_path):
  frames, _ = clip(3)
  np.save(tmp_path / 'clip.npy', frames[..., :1])  # Of one channel, here.
  path = tmp_path / 'boxes.json'
  with flagsaver.flagsaver(
    (track._BOX, '12,10,9,7'),
    (track._OUTPUT, str(tmp_path / 'out.png')),
    (track._BOXES, str(path)),
  ):
    assert track.use(trained, [str(tmp_path / 'clip.npy')]) == 0
  saved = json.loads(path.read_text())
  assert saved['clip'] == str(tmp_path / 'clip.npy')
  assert np.array(saved['boxes']).shape == (3, 4)
  np.testing.assert_array_equal(saved['boxes'][0], BOX)


def test_sequences_are_scored_by_the_command(trained, otb, tmp_path, capsys):
  workdir = tmp_path / 'moved'
  shutil.copytree(trained, workdir)
  expected = results(workdir)
  (workdir / 'results.json').unlink()
  assert track.use(workdir, [str(otb)]) == 0
  table, path = capsys.readouterr().out.rstrip('\n').rsplit('\n', 1)
  assert path == str(workdir / 'results.json')
  assert 'success_auc' in table
  assert results(workdir) == {'sequences': expected['sequences']}


def test_a_data_set_is_scored_as_its_directory(
  trained, otb, tmp_path, monkeypatch
):
  workdir = tmp_path / 'moved'
  shutil.copytree(trained, workdir)
  expected = results(workdir)['sequences']
  monkeypatch.setattr(
    sequences.data,
    'open_split',
    functools.partial(data.open_split, data_dir=tmp_path),
  )
  tracks, _ = tracks_lib.read(otb)
  data.prepare('tracks/toy', tracks, tmp_path)
  assert track.use(workdir, ['tracks/toy']) == 0
  entry = results(workdir)['sequences']
  assert entry['path'] == 'tracks/toy'
  for name in ('scores', 'restarted', 'sequences'):
    assert entry[name] == expected[name]
  with pytest.raises((ValueError, OSError), match='tracks/none is not in'):
    track.use(workdir, ['tracks/none'])


@pytest.mark.parametrize(
  ('box', 'output', 'paths', 'message'),
  [
    ('1,2,3', 'out.png', ['clip.npy'], 'four numbers x,y,width,height'),
    ('12,10,9,0', 'out.png', ['clip.npy'], 'the last two above zero'),
    ('99,10,9,7', 'out.mp4', ['clip.npy'], 'lies outside of the frame'),
    ('12,10,9,7', 'out.jpg', ['clip.npy'], 'ends in .mp4 or .png'),
    ('12,10,9,7', 'no/out.png', ['clip.npy'], 'its folder does not exist'),
    ('12,10,9,7', None, ['clip.npy'], 'pass --output=OUT.mp4, or OUT.png'),
    (None, 'out.png', ['clip.npy'], 'pass the initial box of the target in'),
    (None, None, ['nowhere'], 'pass that of the sequences'),
    ('12,10,9,7', 'out.png', ['a', 'b'], 'pass one clip or one folder'),
    ('12,10,9,7', 'out.png', ['nothing.mp4'], 'nothing.mp4 does not exist'),
    ('12,10,9,7', 'out.png', ['text.mp4'], 'cannot decode'),
  ],
)
def test_what_cannot_be_done_is_said(
  trained, tmp_path, monkeypatch, box, output, paths, message
):
  monkeypatch.chdir(tmp_path)
  np.save('clip.npy', clip(3)[0])
  (tmp_path / 'text.mp4').write_text('no video')
  with (
    flagsaver.flagsaver((track._BOX, box), (track._OUTPUT, output)),
    pytest.raises((ValueError, OSError), match=re.escape(message)),
  ):
    track.use(trained, paths)
  assert not list(tmp_path.glob('out.*'))


def test_only_a_workdir_of_a_tracker_will_do(tmp_path):
  with pytest.raises(FileNotFoundError, match='pass --config='):
    inference.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"model": {"latent": 3}}')
  with pytest.raises(ValueError, match='not the config of a video.track run'):
    inference.load(tmp_path)
  assert clips.read_box(' 1, 2.5,3,4').tolist() == [1, 2.5, 3, 4]

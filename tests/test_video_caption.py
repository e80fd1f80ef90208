"""Training video captioners through the command line, and using them.

One run is left alone, another is stopped and resumed; both must end alike.
"""

import json
import signal

import commands
import jax
import numpy as np
import pytest

from captioning import feature_cache
from captioning import vocabulary
from configs import event_captions as event_config
from configs import msrvtt_attention
from configs import msvd_s2vt
from training import app
from training import batching
from training import loop
from training import parallel
from video import caption
from video import data
from video import frames as frames_lib
from video.captioning import evaluation
from video.captioning import examples as examples_lib
from video.captioning import inference
from video.captioning import model
from video.sources import clips as clips_lib
from video.synthetic import event_captions
from vision import images
from vision import pretrained
from vision import resnet

NUM_STEPS = 12
SMALL = {
  'data.name': 'captioned_clips/few',
  'data.flip_events': False,
  'data.num_frames': 5,
  'data.resize': 16,
  'data.crop': 16,
  'frame_labels': 0,
  'encoder.channels': (4, 4),
  'encoder.features': 8,
  'decoder.features': 8,
  'decoder.embedding': 8,
  'decoder.attention': 8,
  'decoder.encoder_features': 8,
  'optimizer.warmup_steps': 2,
  'batch_size': 4,
  'num_steps': NUM_STEPS,
  'eval_batch_size': 4,
  'best_metric': 'CIDEr',
  'log_every': 2,
  'checkpoint_every': 3,
  'eval_every': 6,
}


def prepare_few(data_dir, name='few', *, side=16):
  """Some clips of `event_captions` as 'captioned_clips/NAME'."""
  clips = []
  for split, count in dict(train=9, validation=3, test=3).items():
    for i in range(count):
      record = event_captions.example(split, i)
      clips.append(
        clips_lib.Clip(
          id=record['id'],
          split=split,
          # Clips differ in length, some are shorter than num_frames.
          frames=record['frames'][: 3 + 2 * i, :side, :side],
          captions=tuple(record['captions']),
        )
      )
  data.prepare(f'captioned_clips/{name}', clips, data_dir, rate=5.0)


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  shell = commands.Shell(tmp_path_factory.mktemp('caption'))
  prepare_few(shell.data_dir)
  yield shell
  shell.end()


def start(shell, workdir):
  """As somebody in a shell would."""
  small = [f'--config.{name}={value}' for name, value in SMALL.items()]
  return shell.start(
    'video.caption',
    f'--workdir={workdir}',
    '--config=configs/event_captions.py',
    f'--config.data.data_dir={shell.data_dir}',
    *small,
    # No Java: METEOR takes longer than all else.
    PATH=str(shell.directory),
  )


def stop_and_resume(shell, workdir):
  """In this process, whose program is the same."""
  config = event_config.get_config()
  config.update_from_flattened_dict(
    {**SMALL, 'data.data_dir': str(shell.data_dir)}
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PATH', str(shell.directory))
    with patch.context() as stopping:
      stopping.setattr(app, 'stopping', lambda step: step == 5)
      with pytest.raises(app.Stopped):
        caption.train_and_evaluate(config, workdir)
    assert max(commands.saved_steps(workdir)) == 5
    caption.train_and_evaluate(app.read_config(workdir), workdir)


@pytest.fixture(scope='module')
def runs(shell):
  """The workdirs of a run that was left alone, and of one that was not."""
  alone, stopped = shell.directory / 'alone', shell.directory / 'stopped'
  start(shell, alone).finish()
  stop_and_resume(shell, stopped)
  return alone, stopped


def results(workdir):
  entries = json.loads((workdir / 'results.json').read_text())
  return {k: commands.without_times(v) for k, v in entries.items()}


def captions(workdir):
  """The written captions of the test split, by clip."""
  text = (workdir / 'results' / 'test.captions.json').read_text()
  return {x['clip_id']: x for x in json.loads(text)}


def test_a_resumed_run_ends_where_another_ends(runs):
  alone, stopped = runs
  commands.assert_same_training(alone, stopped)
  assert results(alone) == results(stopped)


def test_an_encoder_that_is_trained_starts_from_published_weights(tmp_path):
  config = msvd_s2vt.get_config()
  config.cache_features = False
  config.encoder = dict(depth=10, width=2)
  config.encoder_weights = str(tmp_path / 'resnet10.safetensors')
  config.decoder.update(features=4, embedding=4)
  config.data.update(num_frames=2, crop=16)
  encoder = resnet.ResNet(10, width=2).init(
    jax.random.key(5), np.zeros((1, 16, 16, 3), np.float32), train=False
  )
  pretrained.save(config.encoder_weights, encoder)
  example = {
    'frames': np.zeros((2, 16, 16, 3), np.uint8),
    'length': np.int32(2),
    'tokens': np.ones((1, 5), np.int32),
  }
  found = caption.initial_variables(model.create(config, 7), example, config)
  for name, tree in encoder.items():
    jax.tree.map(np.testing.assert_array_equal, found[name]['encoder'], tree)


def test_a_run_that_is_killed_twice_ends_as_one_left_alone(runs, shell):
  workdir = shell.directory / 'killed_twice'
  for happened in (commands.reached(workdir, 4), commands.saving(workdir, 9)):
    run = start(shell, workdir)
    run.stop_when(happened, signal.SIGKILL)
    run.finish(-signal.SIGKILL)
  start(shell, workdir).finish()
  commands.assert_same_training(workdir, runs[0])
  assert results(workdir) == results(runs[0])


class Killed(Exception):
  """Stands for SIGKILL: nothing is saved."""


def test_a_killed_self_critical_run_equals_the_uninterrupted(
  runs, shell, monkeypatch
):
  """It starts from the best checkpoint of a run by cross-entropy."""
  config = event_config.get_config()
  config.update_from_flattened_dict(
    {
      **SMALL,
      'data.data_dir': str(shell.data_dir),
      'start_from': str(runs[0]),
      'self_critical.num_samples': 2,
      'self_critical.workers': 0,
      'optimizer.warmup_steps': 0,
      'num_steps': 6,
      'log_every': 1,
    }
  )
  monkeypatch.setenv('PATH', str(shell.directory))  # No Java.
  whole, killed = shell.directory / 'critical', shell.directory / 'killed'
  caption.train_and_evaluate(config, whole)
  record = loop.Run.record_update

  def kill(run, update, metrics=None):
    record(run, update, metrics)
    if int(run.state.step) == 5:
      raise Killed

  with monkeypatch.context() as killing:
    killing.setattr(loop.Run, 'record_update', kill)
    with pytest.raises(Killed):
      caption.train_and_evaluate(config, killed)
  assert max(commands.saved_steps(killed)) == 3
  caption.train_and_evaluate(app.read_config(killed), killed)
  commands.assert_same_training(killed, whole)
  assert commands.lines(killed) == commands.lines(whole)
  for line in commands.lines(whole, 'train/'):
    assert 0 <= line['train/reward'] <= 10
    assert 1 <= line['train/length'] <= config.data.max_length
  words = [(path / vocabulary.FILE).read_text() for path in (whole, runs[0])]
  assert words[0] == words[1]


def test_results_say_what_was_done(runs, shell):
  entries = results(runs[0])
  assert entries.keys() == {'test', 'test_shuffled'}
  entry = entries['test']
  assert entry['num_clips'] == 3
  assert entry['step'] in (6, NUM_STEPS)
  assert entry['data']['fingerprint'] == data.fingerprint(
    'captioned_clips/few', shell.data_dir
  )
  assert {'CIDEr', 'BLEU-4', 'ROUGE-L', 'loss'} <= entry['scores'].keys()
  assert 'METEOR' in entry['absent']
  assert inference.load(runs[0]).rate == 5
  assert captions(runs[0]).keys() == {f'test-{i:05d}' for i in range(3)}


def test_a_file_is_captioned_as_the_same_clip_of_the_data(runs, shell):
  """Of several files, one of which is none."""
  split = data.open_split('captioned_clips/few', 'test', shell.data_dir)
  clip = shell.directory / 'clip.npy'
  np.save(clip, np.asarray(split[2]['frames']))
  wrong = shell.directory / 'wrong.mp4'
  wrong.write_bytes(b'no clip')
  output = shell.start(
    *('video.caption', f'--workdir={runs[0]}', '--json', str(clip), str(wrong)),
    devices=1,
  ).finish(1)
  found, _ = json.JSONDecoder().raw_decode(output[output.index('[\n  {') :])
  expected = captions(runs[0])[split[2]['id']]
  assert found[0]['caption'] == expected['caption']
  np.testing.assert_allclose(
    found[0]['log_prob'], expected['log_prob'], rtol=1e-4
  )
  assert 'cannot decode' in found[1]['error']
  # The words are those of the caption, at the same frames.
  words = found[0]['words']
  assert ' '.join(x['word'] for x in words) == found[0]['caption']
  assert [x['word'] for x in expected['words']] == [x['word'] for x in words]
  np.testing.assert_allclose(
    [x['seconds'] * frames_lib.DEFAULT_RATE for x in words],
    [x['frame'] for x in expected['words']],
    atol=0.1,
  )
  np.testing.assert_allclose(
    [x['weight'] for x in words],
    [x['weight'] for x in expected['words']],
    atol=1e-3,
  )


# Examples.


def examples(**changes):
  config = event_config.get_config().data
  config.update(changes)
  words = {
    word
    for i in range(9)
    for word in event_captions.example('train', i)['captions'][0].split()
  }
  words |= set(event_captions.DIRECTIONS)
  return examples_lib.Examples(
    vocabulary.Vocabulary([*vocabulary.SPECIAL, *sorted(words)]), config
  )


def test_mirrored_events_have_mirrored_captions():
  made = examples()
  record = event_captions.example('train', 0)
  seen = {}
  for seed in range(20):
    example = made.training(record, np.random.default_rng(seed))
    text = made.vocabulary.decode(example['tokens'][0])
    seen[event_captions.motions(text)] = example
  assert len(seen) == 4
  both = event_captions.flip(event_captions.flip(record), vertical=True)
  example = seen[event_captions.motions(both['captions'][0])]
  np.testing.assert_array_equal(example['frames'], both['frames'])
  np.testing.assert_array_equal(example['frame_labels'], both['frame_labels'])


def test_frames_are_spread_or_counted():
  record = {
    'id': 'a',
    'captions': ['the'],
    'frames': np.arange(9, dtype=np.uint8)[:, None, None, None]
    + np.zeros((9, 32, 32, 3), np.uint8),
    'frame_labels': np.arange(9),
  }
  for changes, wanted in (
    (dict(every=0, num_frames=3), [1, 4, 7]),
    (dict(every=4, num_frames=4), [0, 4, 8]),
    (dict(every=2, num_frames=4), [0, 2, 4, 6]),
  ):
    example = examples(**changes).evaluation(record)
    length = example['length']
    assert length == len(wanted)
    np.testing.assert_array_equal(example['frames'][:length, 0, 0, 0], wanted)
    np.testing.assert_array_equal(example['frame_labels'][:length], wanted)
    assert (example['frame_labels'][length:] == examples_lib.NO_LABEL).all()
    assert len(example['frames']) == changes['num_frames']


def test_shuffled_frames_keep_their_labels():
  """The same order every time, and padding stays at the end."""
  record = event_captions.example('test', 0)
  plain = examples(num_frames=20, every=1).evaluation(record)
  made = examples(num_frames=20, every=1)
  made = examples_lib.Examples(made.vocabulary, made.config, shuffled=True)
  shuffled = made.evaluation(record)
  jax.tree.map(np.testing.assert_array_equal, shuffled, made.evaluation(record))
  assert shuffled['length'] == plain['length'] == 16
  assert not np.array_equal(shuffled['frames'], plain['frames'])

  def sorted_frames(example):
    return sorted(
      (frame.tobytes(), label)
      for frame, label in zip(
        example['frames'][:16], example['frame_labels'][:16], strict=True
      )
    )

  assert sorted_frames(shuffled) == sorted_frames(plain)
  np.testing.assert_array_equal(shuffled['frames'][16:], 0)


def test_event_scores_separate_order_from_set():
  references = dict.fromkeys('abcd', ['the red disc moves left then up'])
  scores = evaluation.event_scores(
    references,
    {
      'a': 'the red disc moves left then up',
      'b': 'the blue disc moves left then up',
      'c': 'the red disc moves up then left',
      'd': 'the red disc moves left then down',
    },
  )
  assert scores == {'exact': 0.25, 'motion_order': 0.5, 'motion_set': 0.75}


def test_only_what_is_computed_ranks_checkpoints():
  config = event_config.get_config()
  evaluation.check_metric(config)
  config.data.name = 'event_captions/pairs'
  evaluation.check_metric(config)
  config.data.name = 'captioned_clips/mine'
  with pytest.raises(ValueError, match="best_metric='motion_order' is none of"):
    evaluation.check_metric(config)


# Cached features.


@pytest.mark.parametrize('module', [msvd_s2vt, msrvtt_attention])
def test_cached_features_are_the_encoders(module, tmp_path):
  """On real configs, small; a person's clips go through the same encoder."""
  prepare_few(tmp_path / 'data')
  config = module.get_config()
  config.data.name = 'captioned_clips/few'
  config.data.data_dir = str(tmp_path / 'data')
  config.data.update(num_frames=4, resize=16, crop=16, vocabulary_threshold=1)
  config.encoder = dict(depth=18, width=2, stem='whole')
  config.eval_batch_size = 4
  cnn = resnet.ResNet(**config.encoder)
  encoder = cnn.init(
    jax.random.key(3), np.zeros((1, 16, 16, 3), np.float32), train=False
  )
  encoder = jax.device_get(encoder)
  pretrained.save(tmp_path / feature_cache.ENCODER_FILE, encoder)

  split = examples_lib.open_split(config, tmp_path, 'train')
  made = examples_lib.make_examples(config, tmp_path, split)
  plain = data.open_split(config.data.name, 'train', config.data.data_dir)
  assert [x['id'] for x in split] == [x['id'] for x in plain]
  for i in (0, 8):
    example = made.evaluation(split[i])
    seen = made.clip(plain[i]['frames'])
    _, features = cnn.apply(encoder, images.normalize(seen), train=False)
    assert example['length'] == len(seen)
    np.testing.assert_allclose(
      example['frames'][: len(seen)], features, rtol=1e-2, atol=1e-3
    )
    np.testing.assert_array_equal(example['frames'][len(seen) :], 0)

  # A person's own clips, of which two fill a batch and one does not.
  with config.unlocked():
    config.decoder.update(features=4, embedding=4)
    if 'attention' in config.decoder:
      config.decoder.update(attention=4, encoder_features=4)
  network = model.create(config, len(made.vocabulary))
  example = {'id': 'a', **made.evaluation(split[0])}
  variables = parallel.replicate(
    caption.initial_variables(network, example, config)
  )
  captioner = inference.Captioner(
    config, made.vocabulary, network, variables, encoder=encoder
  )
  found = captioner.caption([np.asarray(plain[i]['frames']) for i in range(3)])
  wanted = inference.decode(
    inference.decode_step(network, config.decoding, made.vocabulary),
    variables,
    batching.read(
      batching.evaluation_batches(
        [split[i] for i in range(3)], made.evaluation, batch_size=2
      )
    ),
    made.vocabulary,
  )
  for beams, others in zip(found, wanted, strict=True):
    assert [x.text for x in beams] == [x.text for x in others]
    np.testing.assert_allclose(
      [x.log_prob for x in beams], [x.log_prob for x in others], rtol=1e-3
    )

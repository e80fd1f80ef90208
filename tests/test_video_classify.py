"""Examples, evaluation and recognition; and the command, as a shell runs it."""

import concurrent.futures
import json
import os
import re
import shutil
import signal

import commands
import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import gesture_stream as gesture_config
from configs import hand_gestures
from configs import ordered_motion as motion_config
from configs import skeletons
from training import parallel
from video import classify
from video import data
from video import frames as frames_lib
from video import sampling
from video.classification import augmentation
from video.classification import evaluation as evaluation_lib
from video.classification import examples as examples_lib
from video.classification import inference
from video.classification import model as model_lib
from video.sources import fingertips
from video.synthetic import gesture_stream
from video.synthetic import ordered_motion

CIRCLES = ('Stop', 'Clockwise', 'Counter Clockwise', 'Move')


def examples_of(config, class_names):
  return examples_lib.Examples(config.data, config.augmentation, class_names)


def skeleton(length, seed=0, label=0):
  rng = np.random.default_rng(seed)
  joints = rng.normal(size=(length, 60)).astype(np.float32)
  return {'id': f'skeleton-{seed}', 'features': joints, 'label': label}


# Examples.


def test_evaluation_sees_a_whole_skeleton_from_its_spine():
  config = skeletons.get_config('utd_mhad/ours/held_out')
  examples = examples_of(config, ['wave', 'clap'])
  record = skeleton(50, label=1)
  example = examples.evaluation(record)
  assert example['features'].shape == (1, 64, 60)
  assert (example['length'], example['label']) == ([50], 1)
  joints = record['features'].reshape(50, 20, 3)
  seen = example['features'][0, :50].reshape(50, 20, 3)
  np.testing.assert_allclose(seen, joints - joints[0, 2], atol=1e-6)
  np.testing.assert_array_equal(example['features'][0, 50:], 0)
  # Of longer ones as many frames as fit, of the whole recording.
  record = skeleton(128)
  seen = examples.evaluation(record)['features'][0]
  joints = record['features'].reshape(128, 20, 3)[sampling.spread(128, 64)]
  np.testing.assert_allclose(
    seen.reshape(64, 20, 3), joints - joints[0, 2], atol=1e-6
  )


def test_training_on_skeletons_keeps_what_an_action_is():
  """Neither its heights nor its distances, but for the scale."""
  config = skeletons.get_config('utd_mhad/ours/held_out')
  config.augmentation.noise = 0.0
  examples = examples_of(config, ['wave', 'clap'])
  record = skeleton(30)
  joints = record['features'].reshape(30, 20, 3)
  for seed in range(5):
    rng = np.random.default_rng(seed)
    example = examples.training(record, rng)
    length = example['length']
    assert 24 <= length <= 30
    seen = example['features'][:length].reshape(length, 20, 3)
    np.testing.assert_array_equal(seen[0, 2], 0)
    distances = np.linalg.norm(seen[0] - seen[0, 2], axis=-1)
    found = False
    for start in range(30):
      true = np.linalg.norm(joints[start] - joints[start, 2], axis=-1)
      ratio = distances[3:] / true[3:]
      if np.allclose(ratio, ratio[0], rtol=1e-4):
        heights = joints[start, :, 1] - joints[start, 2, 1]
        np.testing.assert_allclose(
          seen[0, :, 1], ratio[0] * heights, rtol=1e-3, atol=1e-4
        )
        found = True
    assert found


def flip(record, name):
  """A clip of `ordered_motion` that is flipped, with its label."""
  labels = augmentation.flipped_labels(name, ordered_motion.CLASSES)
  return {
    'frames': augmentation.flip_frames(record['frames'], name),
    'label': labels[record['label']],
  }


def test_training_flips_clips_with_their_labels():
  config = motion_config.get_config()
  config.augmentation.permute_channels = False
  examples = examples_of(config, ordered_motion.CLASSES)
  record = ordered_motion.example('train', 0)
  mirrored = flip(record, 'left_right')
  upside_down = flip(record, 'up_down')
  both = flip(mirrored, 'up_down')
  seen = set()
  for seed in range(30):
    example = examples.training(record, np.random.default_rng(seed))
    (found,) = (
      i
      for i, flipped in enumerate((record, mirrored, upside_down, both))
      if np.array_equal(example['frames'], flipped['frames'])
      and example['label'] == flipped['label']
    )
    seen.add(found)
  assert seen == {0, 1, 2, 3}


def test_training_streams_are_half_turns_with_all_their_labels():
  config = gesture_config.get_config()
  examples = examples_of(config, gesture_stream.CLASSES)
  record = gesture_stream.example('train', 0)
  table = augmentation.flipped_labels('half_turn', gesture_stream.CLASSES)
  turned = {
    'frames': record['frames'][:, ::-1, ::-1],
    'labels': [table[label] for label in record['labels']],
    'framewise': table[record['framewise']],
  }
  seen = set()
  for seed in range(12):
    example = examples.training(record, np.random.default_rng(seed))
    (found,) = (
      i
      for i, flipped in enumerate((record, turned))
      if np.array_equal(example['frames'], flipped['frames'])
      and list(example['labels']) == flipped['labels']
      and np.array_equal(example['framewise'], flipped['framewise'])
    )
    seen.add(found)
  assert seen == {0, 1}
  config.data.max_gestures = 2
  with pytest.raises(ValueError, match='max_gestures=3 or more'):
    examples_of(config, gesture_stream.CLASSES).evaluation(record)


def test_reversed_clips_have_the_reversed_labels():
  opposite = {'left': 'right', 'right': 'left', 'up': 'down', 'down': 'up'}
  config = motion_config.get_config()
  examples = examples_of(config, ordered_motion.CLASSES)
  for i in range(12):
    record = ordered_motion.example('test', i)
    first, second = ordered_motion.WAYS[record['label']]
    example = examples.evaluation(record, 'reversed')
    np.testing.assert_array_equal(example['frames'][0], record['frames'][::-1])
    label = ordered_motion.WAYS.index((opposite[second], opposite[first]))
    assert example['label'] == label
    shuffled = examples.evaluation(record, 'shuffled')
    assert shuffled['label'] == record['label']
    assert sorted(f.tobytes() for f in shuffled['frames'][0]) == sorted(
      f.tobytes() for f in record['frames']
    )
    assert not np.array_equal(shuffled['frames'][0], record['frames'])


def test_classes_without_a_reversal_have_no_label():
  examples = examples_of(hand_gestures.get_config(), CIRCLES)
  labels = []
  for label in range(4):
    points = np.zeros((16, 2), np.float32)
    record = {'id': 'row', 'features': points, 'label': label}
    labels.append(int(examples.evaluation(record, 'reversed')['label']))
  assert labels == [-1, 2, 1, -1]
  with pytest.raises(ValueError, match='Counter Clockwise is none of the cl'):
    examples_of(hand_gestures.get_config(), CIRCLES[:2])


def test_windows_of_a_video_are_those_of_frames():
  config = motion_config.get_config()
  config.data.update(sampling='window', num_frames=4, stride=2, windows=3)
  examples = examples_of(config, ordered_motion.CLASSES)
  record = ordered_motion.example('test', 0)
  example = examples.evaluation(record)
  windows = sampling.windows(16, 4, 3, stride=2)
  np.testing.assert_array_equal(example['frames'], record['frames'][windows])
  assert list(example['length']) == [4, 4, 4]
  assert list(examples.over_time(record)) == list(range(0, 16, 2))


# Evaluation and recognition.


def small(config):
  """Few units, everything else as in the experiment."""
  if config.encoder:
    config.encoder.update(channels=(4, 4), features=8)
  config.model.features = 8
  config.eval_batch_size = 4
  return config


def trained(config, class_names, frame_shape, **kwargs):
  """A classifier as `inference.load` returns it, with random parameters."""
  config = small(config)
  network = model_lib.create(config, len(class_names))
  dtype = np.uint8 if config.encoder else np.float32
  x = np.ones((1, config.data.num_frames, *frame_shape), dtype)
  length = np.full(1, config.data.num_frames, np.int32)
  init = jax.jit(lambda *args: network.init(*args, train=False))
  variables = init(jax.random.key(3), x, length)
  # Far from undecided.
  params = dict(variables['params'])
  output = jax.tree.map(lambda leaf: 5 * leaf, params['output'])
  return inference.Classifier(
    config,
    class_names,
    frame_shape,
    network,
    {'params': {**params, 'output': output}},
    **kwargs,
  )


def evaluation_of(classifier, source):
  evaluate = evaluation_lib.Evaluator(
    source, classifier.examples, classifier.network, classifier.config
  )
  return evaluate(parallel.replicate(classifier.variables))


def test_evaluation_agrees_with_the_classifier():
  """Of seven clips in batches of four, one by one and in windows."""
  config = motion_config.get_config()
  config.data.update(sampling='window', num_frames=8, windows=2)
  classifier = trained(config, ordered_motion.CLASSES, (32, 32, 3))
  source = [ordered_motion.example('test', i) for i in range(7)]
  evaluation = evaluation_of(classifier, source)
  probabilities = np.stack(
    [classifier.probabilities(record) for record in source]
  )
  labels = np.array([record['label'] for record in source])
  best = probabilities.argmax(axis=1)
  assert [r['id'] for r in evaluation.recordings] == [r['id'] for r in source]
  names = [ordered_motion.CLASSES[i] for i in best]
  assert [r['recognized'] for r in evaluation.recordings] == names
  scores = evaluation.scores
  np.testing.assert_allclose(scores['accuracy'], np.mean(best == labels))
  true = probabilities[np.arange(7), labels]
  np.testing.assert_allclose(scores['loss'], -np.log(true).mean(), rtol=1e-4)
  assert evaluation.confusion.sum() == 7
  assert evaluation.confusion[labels[0], best[0]] > 0


def test_scores_of_streams_agree_with_reading_online():
  config = gesture_config.get_config()
  classifier = trained(config, gesture_stream.CLASSES, (24, 24, 1))
  source = [gesture_stream.example('test', i) for i in range(5)]
  evaluation = evaluation_of(classifier, source)
  right = []
  for record, found in zip(source, evaluation.recordings, strict=True):
    frames = inference.recorded_frames(record)
    labels = [int(p.argmax()) for p in classifier.online(frames)]
    changed = inference.changes(labels)
    emitted = [label for _, label in changed if label]
    assert emitted == model_lib.spoken(np.array(labels))
    names = [gesture_stream.CLASSES[label] for label in emitted]
    assert found['recognized'] == names
    right.append(np.mean(np.array(labels) == record['framewise']))
    truth = [gesture_stream.CLASSES[label] for label in record['labels']]
    assert found['gestures'] == truth
  assert any(found['recognized'] for found in evaluation.recordings)
  # A person's own stream may be longer; here it begins with the last of these.
  frames = np.concatenate([record['frames'] for record in source[::-1]])
  times, probabilities = classifier.over_time({'id': 'long', 'frames': frames})
  assert list(times) == list(range(5 * gesture_stream.LENGTH))
  np.testing.assert_array_equal(
    probabilities[: len(labels)].argmax(axis=1), labels
  )
  np.testing.assert_allclose(
    evaluation.scores['frame_accuracy'], np.mean(right), rtol=1e-6
  )
  assert evaluation.confusion is None


@pytest.mark.parametrize('bidirectional', [False, True])
def test_probabilities_over_time_end_with_those_of_the_recording(bidirectional):
  config = skeletons.get_config('utd_mhad/ours/held_out')
  config.data.num_frames = 12
  config.model.bidirectional = bidirectional
  names = ['wave', 'clap', 'jog']
  classifier = trained(config, names, (60,))
  for length in (5, 12, 40):
    record = skeleton(length)
    times, over_time = classifier.over_time(record)
    assert len(times) == len(over_time) == min(length, 12)
    np.testing.assert_allclose(
      over_time[-1], classifier.probabilities(record), atol=1e-5
    )
    np.testing.assert_allclose(over_time.sum(axis=1), 1, rtol=1e-5)
  assert np.ptp(over_time, axis=0).max() > 0.01


def test_files_that_do_not_fit_are_refused(tmp_path):
  classifier = trained(
    skeletons.get_config('utd_mhad/ours/held_out'), ['wave', 'clap'], (60,)
  )
  for name, array, message in (
    ('wide.npy', np.zeros((4, 61), np.float32), r'frames of \[61\], the class'),
    ('deep.npy', np.zeros((4, 20, 4), np.float32), 'a recording is'),
    ('nan.npy', np.full((4, 60), np.nan, np.float32), 'are not finite'),
  ):
    np.save(tmp_path / name, array)
    with pytest.raises(ValueError, match=message):
      classifier.read(tmp_path / name)
  with pytest.raises(ValueError, match='does not read images'):
    classifier.read(tmp_path / 'clip.mp4')
  # Those of the forms that are prepared do.
  joints = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
  np.save(tmp_path / 'joints.npy', joints)
  np.savetxt(tmp_path / 'joints.csv', joints.reshape(4, 60), delimiter=',')
  for name in ('joints.npy', 'joints.csv'):
    found = classifier.read(tmp_path / name)['features']
    np.testing.assert_allclose(found, joints.reshape(4, 60), rtol=1e-6)
  classifier = trained(
    gesture_config.get_config(), gesture_stream.CLASSES, (24, 24, 1)
  )
  rng = np.random.default_rng(0)
  clip = rng.integers(256, size=(5, 30, 40, 3), dtype=np.uint8)
  np.save(tmp_path / 'colour.npy', clip)
  np.save(tmp_path / 'grey.npy', clip[..., 0])
  record = classifier.read(tmp_path / 'colour.npy')
  assert record['frames'].shape == (5, 30, 40, 1)
  assert classifier.over_time(record)[1].shape == (5, 9)
  classifier = trained(
    motion_config.get_config(), ordered_motion.CLASSES, (32, 32, 3)
  )
  grey = classifier.read(tmp_path / 'grey.npy')
  np.testing.assert_array_equal(grey['frames'], clip[..., :1].repeat(3, -1))


def test_videos_are_thinned_to_the_rate_of_training(tmp_path):
  config = motion_config.get_config()
  frames = ordered_motion.example('test', 0)['frames']
  frames_lib.write(tmp_path / 'clip.mp4', frames, rate=24)
  for rate, step in ((None, 1), (24.0, 1), (8.0, 3)):
    classifier = trained(config, ordered_motion.CLASSES, (32, 32, 3), rate=rate)
    record = classifier.read(tmp_path / 'clip.mp4')
    np.testing.assert_array_equal(
      record['frames'], frames_lib.read(tmp_path / 'clip.mp4')[::step]
    )


def test_unknown_metrics_are_refused():
  config = ml_collections.ConfigDict(gesture_config.get_config().to_dict())
  evaluation_lib.check_metric(config)
  config.best_metric = 'accuracy'
  with pytest.raises(ValueError, match="'accuracy' is none of edit_accuracy,"):
    evaluation_lib.check_metric(config)


# The command.

NUM_STEPS = 24
SMALL = {
  'data.name': 'skeletons/few',
  'data.num_frames': 10,
  'model.features': 8,
  'model.bidirectional': False,
  'optimizer.warmup_steps': 4,
  'batch_size': 8,
  'num_steps': NUM_STEPS,
  'eval_batch_size': 4,
  'log_every': 4,
  'checkpoint_every': 5,
  'eval_every': 8,
}


class Shell(commands.Shell):
  """Starts runs of the small experiment."""

  def start(self, *arguments, **kwargs):
    kwargs['flags'] = '--xla_backend_optimization_level=0'
    return super().start('video.classify', *arguments, **kwargs)

  def train(self, workdir, **kwargs):
    small = [f'--config.{name}={value}' for name, value in SMALL.items()]
    return self.start(
      f'--workdir={workdir}',
      '--config=configs/skeletons.py:utd_mhad/ours/held_out',
      f'--config.data.data_dir={self.data_dir}',
      *small,
      **kwargs,
    )


def arms(index, split, label):
  """A body one of whose joints rises in the one class, and sinks in the other.

  Over ten to thirteen frames; the frames are those of both.
  """
  rng = np.random.default_rng((index, len(split)))
  length = int(rng.integers(10, 14))
  joints = np.tile(rng.normal(size=(20, 3)), (length, 1, 1))
  way = np.linspace(-1, 1, length)
  joints[:, 7, 1] += way if label == 'rise' else -way
  return fingertips.Features(
    id=f'{split}-{label}-{index}',
    split=split,
    features=joints.reshape(length, 60).astype(np.float32),
    label=label,
  )


def few_arms():
  """Some of either class in each split."""
  return [
    arms(i, split, label)
    for split, count in (('train', 12), ('validation', 3), ('test', 4))
    for i in range(count)
    for label in ('rise', 'sink')
  ]


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  shell = Shell(tmp_path_factory.mktemp('classify'))
  data.prepare('skeletons/few', few_arms(), shell.data_dir)
  yield shell
  shell.end()


def run_whole(shell):
  workdir = shell.directory / 'here'
  shell.train(workdir).finish()
  # Nothing of a run may depend on where it was.
  return workdir.rename(shell.directory / 'whole')


def run_killed(shell):
  workdir = shell.directory / 'killed'
  run = shell.train(workdir)
  # The first evaluation, at step 8, has to compile.
  run.stop_when(commands.reached(workdir, 4), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  run = shell.train(workdir)
  run.stop_when(commands.saving(workdir, 10), signal.SIGKILL)
  run.finish(-signal.SIGKILL)
  assert 5 <= max(commands.saved_steps(workdir)) < NUM_STEPS
  shell.start(f'--workdir={workdir}').finish()
  return workdir


@pytest.fixture(scope='module')
def runs(shell):
  with concurrent.futures.ThreadPoolExecutor(max(os.cpu_count(), 2)) as pool:
    started = [pool.submit(run, shell) for run in (run_whole, run_killed)]
    yield [run.result() for run in started]


def results(workdir):
  """Of the held-out subject: such a run leaves the test subjects alone."""
  ((split, entry),) = json.loads((workdir / 'results.json').read_text()).items()
  assert split == 'validation'
  assert not list((workdir / 'results').glob('test*'))
  recognized = (workdir / 'results' / 'validation.recognized.json').read_text()
  return commands.without_times(entry), json.loads(recognized)


def test_killed_and_resumed_equals_uninterrupted(runs):
  whole, killed = runs
  commands.assert_same_training(killed, whole)
  assert commands.lines(killed) == commands.lines(whole)
  assert results(killed) == results(whole)


def test_a_run_ends_with_results_and_plots(runs):
  whole, _ = runs
  entry, recognized = results(whole)
  validation = commands.lines(whole, 'validation/')
  assert [line['step'] for line in validation] == [8, 16, 24]
  accuracies = {
    line['step']: line['validation/accuracy'] for line in validation
  }
  assert accuracies[entry['step']] == max(accuracies.values())
  assert entry['scores']['accuracy'] == max(accuracies.values())
  assert entry['num_recordings'] == len(recognized) == 6
  right = [r['class'] == r['recognized'] for r in recognized]
  assert entry['scores']['accuracy'] == np.mean(right)
  assert entry['config']['model']['features'] == 8
  confusion = json.loads(
    (whole / 'results' / 'validation.confusion.json').read_text()
  )
  assert confusion['classes'] == ['rise', 'sink']
  counts = np.array(confusion['rows_are_true'])
  assert counts.sum() == 6 and np.trace(counts) == sum(right)
  for name in ('validation.png', 'validation.confusion.png'):
    with PIL.Image.open(whole / 'results' / name) as image:
      assert np.ptp(np.asarray(image)) > 0


def use(workdir, *files, **options):
  """Runs the command on files in this process; returns its exit status."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**options):
    return classify.use(workdir, list(map(str, files)))


def test_files_are_recognized_as_in_the_evaluation(
  shell, runs, tmp_path, capsys
):
  whole, _ = runs
  _, recognized = results(whole)
  file, broken = tmp_path / 'sink.npy', tmp_path / 'broken.npy'
  np.save(file, arms(2, 'validation', 'sink').features)
  broken.write_bytes(b'no array')
  (expected,) = (r for r in recognized if r['id'] == 'validation-sink-2')
  sure = expected['probability']

  output = shell.start(f'--workdir={whole}', str(file), '--json').finish()
  (found,) = json.loads(output[output.index('[\n') :])
  assert found['path'] == str(file)
  (best,) = found['classes']
  assert best['class'] == expected['recognized']
  np.testing.assert_allclose(best['probability'], sure, atol=1e-5)

  plot = tmp_path / 'plot.png'
  assert use(whole, file, broken, top=2, plot=str(plot)) == 1
  output = capsys.readouterr()
  other = {'rise': 'sink', 'sink': 'rise'}[expected['recognized']]
  assert output.out == (
    f'{file}\t{expected["recognized"]}\t{sure:.3f}\n'
    f'{file}\t{other}\t{1 - sure:.3f}\n'
  )
  assert output.err.startswith(f'{broken}: error: cannot read')
  with PIL.Image.open(plot) as image:
    assert np.ptp(np.asarray(image)) > 0

  assert use(whole, file, online=True) == 0
  lines = capsys.readouterr().out.splitlines()
  # The first frame, and wherever it became surer of the other.
  assert lines[0].split('\t')[:2] == [str(file), '0']
  assert lines[-1].split('\t')[2] == expected['recognized']


def test_wrong_use_says_what_to_do(runs, tmp_path):
  whole, _ = runs
  empty, backwards = tmp_path / 'empty', tmp_path / 'backwards'
  shutil.copytree(whole, backwards)
  config = json.loads((whole / 'config.json').read_text())
  config['model']['bidirectional'] = True
  (backwards / 'config.json').write_text(json.dumps(config))
  for workdir, options, message in (
    (empty, {}, 'does not exist: pass'),
    (whole, {'plot': 'out'}, '--plot=out: pass a name that ends in .png'),
    (
      backwards,
      {'online': True},
      'leave out --online, or train with model.bidirectional=False',
    ),
  ):
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
      use(workdir, 'clip.mp4', **options)

"""The command line on a workdir that holds random parameters."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import PIL.Image
import pytest

from captioning import caption
from captioning import data
from captioning import evaluation
from captioning import examples
from captioning import feature_cache
from captioning import inference
from captioning import main
from captioning import model
from captioning import records
from captioning import sources
from captioning import vocabulary
from configs import scenes
from recurrent import likelihood
from training import checkpoints
from training import parallel
from vision import images
from vision import pretrained

ROOT = pathlib.Path(__file__).parents[1]
WORDS = [*vocabulary.SPECIAL, *'a red blue dog cat ball on left of'.split()]


def small_config():
  config = scenes.get_config()
  config.data.update(resize=18, crop=16, max_length=7)
  config.encoder = dict(depth=18, width=2, stem='whole')
  config.decoder.update(features=6, embedding=5, attention=4)
  config.decoding.update(beam_size=2, max_length=7)
  config.eval_batch_size = 4
  return config


def write_workdir(workdir, config):
  """What training leaves, with random parameters; returns the encoder's."""
  captioner = model.create(config, len(WORDS))
  example = {
    'image': np.zeros((16, 16, 3), np.uint8),
    'tokens': np.ones((1, 7), np.int32),
  }
  variables = main.initial_variables(captioner, example, config)
  variables = jax.tree.map(np.array, variables)
  # Opinionated enough that captions differ, and not empty.
  rng = np.random.default_rng(0)
  decoder = jax.tree.map(
    lambda x: x + rng.normal(size=x.shape).astype(np.float32),
    variables['params']['decoder'],
  )
  decoder['output']['bias'][vocabulary.EOS_ID] -= 2
  variables['params']['decoder'] = decoder
  encoder = {name: tree['encoder'] for name, tree in variables.items()}
  if config.cache_features:
    variables = {'params': {'decoder': decoder}}
  checkpoints.write_config(workdir, config)
  state = parallel.create_state(variables, optax.sgd(0.1))
  with checkpoints.Checkpoints(
    workdir, best_metric=config.best_metric
  ) as saved:
    saved.save(state, extras={'config': config.to_dict(), 'vocabulary': WORDS})
  return encoder


def save_pictures(directory, count):
  """Pictures that differ much, none of them square."""
  rng = np.random.default_rng(1)
  directory.mkdir(parents=True, exist_ok=True)
  paths = [directory / f'{i}.png' for i in range(count)]
  for path in paths:
    coarse = rng.integers(0, 256, (2, 3, 3), np.uint8)
    PIL.Image.fromarray(coarse.repeat(10, 0).repeat(10, 1)).save(path)
  return paths


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  write_workdir(workdir, small_config())
  return workdir


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  return save_pictures(tmp_path_factory.mktemp('pictures'), 5)


def run(capsys, *arguments):
  """The exit status, what was printed, and the errors."""
  status = caption.main([str(argument) for argument in arguments])
  captured = capsys.readouterr()
  return status, captured.out, captured.err


def run_json(capsys, *arguments):
  status, out, _ = run(capsys, '--json', *arguments)
  assert status == 0
  return json.loads(out)


def test_captions_and_log_probs_are_the_models(workdir, pictures, capsys):
  results = run_json(capsys, f'--workdir={workdir}', *pictures)
  assert [result['path'] for result in results] == [str(p) for p in pictures]
  assert len({result['caption'] for result in results}) > 1
  trained = inference.restore(workdir)
  words = trained.vocabulary
  # A caption of seven words has no EOS.
  tokens = np.stack(
    [words.encode(result['caption'], 8)[None, :7] for result in results]
  )
  crops = np.stack(
    [
      images.for_evaluation(images.decode(path), resize=18, crop=16)
      for path in pictures
    ]
  )
  logits, _ = jax.jit(trained.network.apply, static_argnames='train')(
    trained.variables, crops, tokens, train=False
  )
  log_probs = -likelihood.cross_entropy(logits, tokens)
  log_probs = np.where(tokens == vocabulary.PAD_ID, 0, log_probs)
  np.testing.assert_allclose(
    [result['log_prob'] for result in results],
    log_probs.sum((1, 2)),
    rtol=1e-4,
  )


def test_many_pictures_are_described_as_each_alone(workdir, pictures, capsys):
  together = run_json(capsys, f'--workdir={workdir}', *pictures)
  captioner = inference.load(str(workdir))
  for path, result in zip(pictures, together, strict=True):
    ((alone, *_),) = captioner.caption([captioner.read(path)])
    assert alone.text == result['caption']
    np.testing.assert_allclose(alone.log_prob, result['log_prob'], rtol=1e-5)


def test_captions_with_attention_are_those_of_the_parts(workdir, pictures):
  """In batches of any size, whoever crops."""
  captioner = inference.load(workdir, batch_sizes=(2, 4))
  images = [captioner.read(path) for path in pictures]
  together = captioner.caption_with_attention(images)
  captions = inference.load(workdir).caption(
    [captioner.preprocess(image) for image in images], preprocessed=True
  )
  for image, one, beams in zip(images, together, captions, strict=True):
    assert [c.text for c in one.captions] == [c.text for c in beams]
    np.testing.assert_allclose(
      [c.log_prob for c in one.captions],
      [c.log_prob for c in beams],
      rtol=1e-4,
    )
    np.testing.assert_allclose(
      one.attention, captioner.attention(image, beams[0]), atol=1e-5
    )


def test_n_best_captions_come_with_their_probabilities(
  workdir, pictures, capsys
):
  best = run_json(capsys, f'--workdir={workdir}', *pictures)
  several = run_json(capsys, f'--workdir={workdir}', '--n_best=2', *pictures)
  for one, more in zip(best, several, strict=True):
    assert more['n_best'][0] == {k: one[k] for k in ('caption', 'log_prob')}
    log_probs = [found['log_prob'] for found in more['n_best']]
    assert len(log_probs) == 2 and log_probs == sorted(log_probs)[::-1]
  _, out, _ = run(capsys, f'--workdir={workdir}', '--n_best=2', *pictures)
  assert len(out.splitlines()) == 2 * len(pictures)


def test_decoding_obeys_the_words_of_its_rules(workdir, pictures, capsys):
  plain = run_json(capsys, f'--workdir={workdir}', *pictures)
  first = plain[0]['caption'].split()[0]
  ruled = run_json(
    capsys,
    f'--workdir={workdir}',
    f'--decoding=forbidden_words=({first!r},)',
    "--decoding=required_words=(('dog', 'cat'), 'ball')",
    '--decoding=beam_size=4',
    *pictures,
  )
  for result in ruled:
    words = result['caption'].split()
    assert first not in words
    assert 'ball' in words and {'dog', 'cat'} & set(words)


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('beam=3', 'FIELD=VALUE'),
    ('beam_size', 'FIELD=VALUE'),
    ('beam_size=many', 'many is not a Python literal'),
    ('beam_size="3"', 'beam_size must be like 2'),
    ("forbidden_words=('zebra',)", 'zebra is not among the 13 words'),
  ],
)
def test_wrong_decoding_is_a_clear_error(
  option, message, workdir, pictures, capsys
):
  with pytest.raises(SystemExit):
    caption.main(
      [f'--workdir={workdir}', f'--decoding={option}', str(pictures[0])]
    )
  assert message in capsys.readouterr().err


def test_an_ensemble_of_equals_is_each_of_them(workdir, pictures, capsys):
  alone = run_json(capsys, f'--workdir={workdir}', *pictures)
  members = [f'--workdir={workdir}'] * 2
  together = run_json(capsys, *members, *pictures)
  for one, both in zip(alone, together, strict=True):
    assert one['caption'] == both['caption']
    np.testing.assert_allclose(one['log_prob'], both['log_prob'], rtol=1e-4)


def test_folders_are_searched_for_pictures(workdir, tmp_path, capsys):
  one, two = save_pictures(tmp_path / 'below' / 'deep', 2)
  (tmp_path / 'notes.txt').write_text('no picture, and none by its name')
  three = one.rename(tmp_path / 'three.PNG')
  status, out, err = run(capsys, f'--workdir={workdir}', tmp_path, two)
  assert status == 0, err
  lines = [line.split('\t') for line in out.splitlines()]
  assert [path for path, _, _ in lines] == [str(two), str(three), str(two)]
  assert lines[0][1:] == lines[2][1:]
  json_results = run_json(capsys, f'--workdir={workdir}', tmp_path)
  assert lines[:2] == [
    [result['path'], result['caption'], f'{result["log_prob"]:.2f}']
    for result in json_results
  ]


def test_a_broken_picture_does_not_stop_the_others(
  workdir, pictures, tmp_path, capsys
):
  broken = tmp_path / 'broken.png'
  broken.write_bytes(pictures[0].read_bytes()[:60])
  absent = tmp_path / 'absent.png'
  paths = [pictures[0], broken, pictures[1], absent]
  status, out, err = run(capsys, f'--workdir={workdir}', *paths)
  assert status == 1
  alone = run(capsys, f'--workdir={workdir}', pictures[0], pictures[1])
  assert (0, out) == alone[:2]
  errors = [line for line in err.splitlines() if ': error: ' in line]
  assert len(errors) == 2
  assert errors[0].startswith(f'{broken}: error: cannot decode')
  assert errors[1].startswith(f'{absent}: error: ')
  status, out, _ = run(capsys, f'--workdir={workdir}', '--json', *paths)
  assert status == 1
  assert ['error' in result for result in json.loads(out)] == [
    False,
    True,
    False,
    True,
  ]


def test_attention_is_drawn(workdir, pictures, tmp_path, capsys):
  path = tmp_path / 'out.png'
  arguments = [f'--workdir={workdir}', f'--attention={path}']
  (one,) = run_json(capsys, *arguments, pictures[0])
  single = np.asarray(PIL.Image.open(path))
  run_json(capsys, *arguments, *pictures[:2])
  both = np.asarray(PIL.Image.open(path))
  np.testing.assert_array_equal(both[: len(single)], single)
  assert len(both) > len(single)
  captioner = inference.load(workdir)
  weights = captioner.attention(
    captioner.read(pictures[0]),
    vocabulary.Caption(
      one['caption'], one['log_prob'], tuple(one['caption'].split())
    ),
  )
  np.testing.assert_allclose(weights.sum(-1), np.ones(7), rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('out.txt', 'pass a name that ends in .png'),
    ('out', 'pass a name that ends in .png'),
    ('absent/out.png', 'its folder does not exist'),
  ],
)
def test_a_sheet_that_cannot_be_written_is_an_error_at_once(
  name, message, pictures, tmp_path, capsys
):
  path = tmp_path / name
  with pytest.raises(SystemExit):
    caption.main(['--workdir=absent', f'--attention={path}', str(pictures[0])])
  assert f'--attention={path}: {message}' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({}, 'config.json does not exist: pass --config'),
    ({'config.json': '{'}, 'config.json is not JSON'),
    (
      {'config.json': small_config().to_json()},
      'checkpoints does not exist: train there first',
    ),
  ],
)
def test_unreadable_workdirs_are_clear_errors(
  files, message, pictures, tmp_path, capsys
):
  for name, text in files.items():
    (tmp_path / name).write_text(text)
  with pytest.raises(SystemExit) as error:
    caption.main([f'--workdir={tmp_path}', str(pictures[0])])
  assert error.value.code == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('min_length=30', 'decoding.min_length=30 must be at most max_length='),
    ('beam_size=0', 'decoding.beam_size=0 must be an integer of at least 1'),
    ('beam_size=5000', 'decoding.beam_size=5000 must be at most'),
    ('num_groups=2', 'must be a multiple of num_groups=2'),
  ],
)
def test_impossible_decoding_is_an_error(
  option, message, workdir, pictures, capsys
):
  arguments = ['--decoding=beam_size=3', f'--decoding={option}']
  with pytest.raises(SystemExit) as error:
    caption.main([f'--workdir={workdir}', *arguments, str(pictures[0])])
  assert error.value.code == 2
  assert message in capsys.readouterr().err


def test_a_folder_without_pictures_is_an_error(workdir, tmp_path, capsys):
  with pytest.raises(SystemExit):
    caption.main([f'--workdir={workdir}', str(tmp_path)])
  assert f'no images in {tmp_path}' in capsys.readouterr().err


def test_as_a_program(workdir, pictures, capsys):
  arguments = [f'--workdir={workdir}', '--json', str(pictures[0])]
  found = subprocess.run(
    [sys.executable, '-m', 'captioning.caption', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  (program,) = json.loads(found.stdout)
  (called,) = run_json(capsys, *arguments)
  assert program == pytest.approx(called)


def test_pictures_and_cached_grids_give_the_same_captions(tmp_path, capsys):
  """Within the rounding of the cache to half precision."""
  paths = save_pictures(tmp_path / 'pictures', 5)
  data.prepare(
    'toy',
    [
      sources.CaptionedFile(
        id=path.stem, path=path, split='test', captions=['A cat']
      )
      for path in paths
    ],
    tmp_path / 'data',
  )
  config = small_config()
  config.cache_features = True
  config.train_batch_stats = False
  config.data.update(
    name='captioned_images/toy', data_dir=str(tmp_path / 'data')
  )
  workdir = tmp_path / 'run'
  encoder = write_workdir(workdir, config)
  pretrained.save(workdir / feature_cache.ENCODER_FILE, encoder)

  trained = inference.restore(workdir, with_encoder=False)
  assert 'encoder' not in trained.variables['params']
  source = records.open_split(config, workdir, 'test')
  assert source[0]['features'].dtype == np.float16
  evaluate = evaluation.Evaluator(
    source,
    examples.Examples(trained.vocabulary, config.data),
    [trained.network],
    config,
  )
  cached = evaluate([trained.variables]).captions
  capsys.readouterr()  # What TFDS has printed.
  results = run_json(capsys, f'--workdir={workdir}', *paths)
  assert len(cached) == len(results) == 5
  assert len({result['caption'] for result in results}) > 1
  for path, result in zip(paths, results, strict=True):
    best = cached[path.stem][0]
    assert result['caption'] == best.text
    np.testing.assert_allclose(result['log_prob'], best.log_prob, rtol=1e-2)

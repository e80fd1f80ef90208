"""The command line, on workdirs that hold random parameters."""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest

from configs import sketch_sheep
from sketch_rnn import builders
from sketch_rnn import examples
from sketch_rnn import file_formats
from sketch_rnn import inference
from sketch_rnn import latent
from sketch_rnn import model as model_lib
from sketch_rnn import rendering
from sketch_rnn import sample
from sketch_rnn import strokes
from training import checkpoints
from training import parallel

ROOT = pathlib.Path(__file__).parents[1]
LENGTH = 16
SCALE = 30.0
PATH = '{http://www.w3.org/2000/svg}path'


def some_drawings(count, seed=0):
  """Whole numbers of pixels, as in QuickDraw's files."""
  rng = np.random.default_rng(seed)
  drawings = []
  for _ in range(count):
    drawing = rng.integers(-40, 40, (int(rng.integers(4, 10)), 3))
    drawing[:, 2] = rng.random(len(drawing)) < 0.3
    drawing[-1, 2] = 1
    drawings.append(drawing.astype(np.float32))
  return drawings


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """'sketches/few': five drawings for testing, of two categories."""
  directory = tmp_path_factory.mktemp('data')
  sketches = [
    file_formats.Sketch(f'{i}', drawing, ('cat', 'pig')[i % 2], 'test')
    for i, drawing in enumerate(some_drawings(5))
  ]
  builders.prepare('few', sketches, directory)
  return directory


@pytest.fixture(scope='module')
def records(data_dir):
  """As they are stored: in another order."""
  split = examples.open_split('sketches/few', 'test', data_dir)
  return [split[i] for i in range(len(split))]


@pytest.fixture(scope='module')
def originals(records):
  return [record['strokes'] for record in records]


def write_workdir(workdir, data_dir, **arguments):
  """What training leaves, with random parameters."""
  arguments = {
    'encoder_features': 6,
    'decoder_features': 8,
    'latent': 4,
    'mixtures': 3,
    'conditional': True,
    'num_classes': 0,
    **arguments,
  }
  model = model_lib.SketchRNN(**arguments)
  variables = jax.jit(model.init)(
    {'params': jax.random.key(0), 'latent': jax.random.key(1)},
    jnp.zeros((1, 3, 5)),
    jnp.ones((1,), jnp.int32),
    jnp.zeros((1,), jnp.int32) if arguments['num_classes'] else None,
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: (x + rng.normal(0, 0.4, x.shape)).astype(np.float32),
    jax.device_get(variables),
  )
  # Drawings are to have some points.
  variables['params']['output']['bias'][:3] = [1, 0, -1]
  config = sketch_sheep.get_config()
  config.model.update(arguments)
  config.data.update(name='sketches/few', data_dir=str(data_dir))
  checkpoints.write_config(workdir, config)
  state = parallel.create_state(variables, optax.identity())
  drawings = examples.Examples(SCALE, LENGTH, ('cat', 'pig')).to_dict()
  with checkpoints.Checkpoints(
    workdir, best_metric='loss', mode='min'
  ) as saved:
    extras = {'config': config.to_dict(), 'drawings': drawings}
    saved.save(state, extras=extras)
  return workdir


@pytest.fixture(scope='module')
def vae(tmp_path_factory, data_dir):
  return write_workdir(tmp_path_factory.mktemp('vae'), data_dir)


@pytest.fixture(scope='module')
def decoder(tmp_path_factory, data_dir):
  return write_workdir(
    tmp_path_factory.mktemp('decoder'), data_dir, conditional=False
  )


@pytest.fixture(scope='module')
def classes(tmp_path_factory, data_dir):
  return write_workdir(
    tmp_path_factory.mktemp('classes'), data_dir, num_classes=2
  )


@pytest.fixture
def run(tmp_path, capsys):
  """Runs a mode; returns the paths printed."""

  def run(mode, workdir, *arguments, output='out'):
    status = sample.main(
      [
        mode,
        f'--workdir={workdir}',
        f'--output={tmp_path / output}',
        *map(str, arguments),
      ]
    )
    assert status == 0
    printed = capsys.readouterr().out.splitlines()
    paths = [pathlib.Path(line) for line in printed]
    assert all(path.exists() for path in paths)
    return paths

  return run


def svg(paths):
  """The SVG that was written; the PNG beside it shows the same sheet."""
  text, png, *_ = paths
  assert (text.suffix, png.suffix) == ('.svg', '.png')
  assert text.with_suffix('') == png.with_suffix('')
  root = ET.fromstring(text.read_text())
  size = (float(root.get('width')), float(root.get('height')))
  with PIL.Image.open(png) as image:
    assert image.size == tuple(int(2 * length) for length in size)
  return text.read_text()


def colours(text):
  return {path.get('stroke') for path in ET.fromstring(text).iter(PATH)}


def sheet(*sections):
  """The SVG of (panels, columns, heading)."""
  return rendering.svg([rendering.Section(*section) for section in sections])


def options(temperature, seed=0):
  """Arguments of a `Sketcher`, as the command passes them."""
  return {'key': jax.random.key(seed), 'temperature': temperature}


def test_sample_draws_from_the_prior(vae, run):
  found = svg(
    run('sample', vae, '--count=12', '--temperature=0.1,0.8', '--seed=3')
  )
  expected = []
  for temperature in (0.1, 0.8):
    drawings = inference.load(vae).sample(12, **options(temperature, seed=3))
    assert len({len(drawing) for drawing in drawings}) > 1
    expected.append(
      (
        [rendering.panel(drawing) for drawing in drawings],
        10,
        f'temperature {temperature}',
      )
    )
  assert found == sheet(*expected)


def test_the_seed_decides(decoder, run):
  texts = [svg(run('sample', decoder, f'--seed={seed}')) for seed in (0, 0, 1)]
  assert texts[0] == texts[1] != texts[2]
  greedy = [
    svg(run('sample', decoder, '--greedy', f'--seed={seed}')) for seed in (0, 1)
  ]
  assert greedy[0] == greedy[1]
  others = {
    svg(run('sample', decoder, option))
    for option in ('--sigma=tf1', '--choices=js', '--temperature=0.7')
  }
  assert len({*others, texts[0]}) == 4


def test_every_class_is_sampled(classes, run):
  found = svg(run('sample', classes, '--count=2'))
  expected = []
  for label, name in enumerate(('cat', 'pig')):
    drawings = inference.load(classes).sample(
      2, **options(0.4), labels=np.full(2, label, np.int32)
    )
    expected.append(
      (
        [rendering.panel(drawing) for drawing in drawings],
        2,
        f'{name}, temperature 0.4',
      )
    )
  assert found == sheet(*expected)
  assert svg(run('sample', classes, '--count=2', '--category=pig')) == sheet(
    expected[1]
  )


def test_latent_vectors_are_saved_and_drawn(vae, run, records):
  (path,) = run('encode', vae, 'test:1', 'test:3-4')
  saved = latent.load(path)
  sketcher = inference.load(vae)
  chosen = [records[i] for i in (1, 3, 4)]
  mean, sigma = sketcher.encode([record['strokes'] for record in chosen])
  np.testing.assert_allclose(saved.mean, mean, rtol=1e-5)
  np.testing.assert_allclose(saved.sigma, sigma, rtol=1e-5)
  np.testing.assert_array_equal(
    saved.z,
    sketcher.sample_posterior(saved.mean, saved.sigma, jax.random.key(0)),
  )
  assert saved.ids == ['test:1', 'test:3', 'test:4']
  assert saved.categories == [record['category'] for record in chosen]

  found = svg(run('decode', vae, path, '--temperature=0.3', output='drawn'))
  drawings = inference.load(vae).decode(saved.z, **options(0.3))
  panels = [
    rendering.panel(drawing, f'out.npz:{i}')
    for i, drawing in enumerate(drawings)
  ]
  assert found == sheet((panels, 3, 'temperature 0.3'))


def test_denoising_goes_through_the_mean(vae, run, originals):
  found = svg(run('denoise', vae, 'test:2', '--temperature=0.2'))
  original = originals[2]
  (drawing,) = inference.load(vae).decode(
    inference.load(vae).encode([original])[0], **options(0.2)
  )
  panels = [
    rendering.panel(original, 'test:2'),
    rendering.panel(drawing, given=0),
  ]
  assert found == sheet((panels, 2, 'temperature 0.2'))


def test_reconstructions_stand_beside_the_original(vae, run, originals):
  found = svg(run('reconstruct', vae, 'test:0-1', '--count=3'))
  sketcher = inference.load(vae)
  mean, sigma = sketcher.encode(originals[:2])
  z = sketcher.sample_posterior(
    mean.repeat(3, 0), sigma.repeat(3, 0), jax.random.key(0)
  )
  drawings = inference.load(vae).decode(z, **options(0.4))
  panels = []
  for i in range(2):
    panels.append(rendering.panel(originals[i], f'test:{i}'))
    panels += [
      rendering.panel(drawing, given=0)
      for drawing in drawings[3 * i : 3 * i + 3]
    ]
  assert found == sheet((panels, 4, 'temperature 0.4'))


@pytest.mark.parametrize('method', ['spherical', 'linear'])
@pytest.mark.parametrize('corners', [2, 4])
def test_interpolation_from_latents(vae, run, tmp_path, corners, method):
  z = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
  np.savez(tmp_path / 'z.npz', z=z)
  found = svg(
    run(
      'interpolate',
      vae,
      f'{tmp_path / "z.npz"}:0-{corners - 1}',
      '--count=3',
      f'--method={method}',
    )
  )
  between = latent.INTERPOLATIONS[method]
  if corners == 2:
    path = latent.path(z[0], z[1], 3, between)
  else:
    path = latent.grid(z, 3, between).reshape(9, 4)
  panels = [
    rendering.panel(drawing)
    for drawing in inference.load(vae).decode(path, **options(0.1))
  ]
  assert found == sheet((panels, 3, 'temperature 0.1'))


def test_interpolation_from_drawings_goes_between_their_means(
  vae, run, originals
):
  found = svg(run('interpolate', vae, 'test:0', 'test:3', '--count=4'))
  ends = [originals[i] for i in (0, 3)]
  mean, _ = inference.load(vae).encode(ends)
  drawings = inference.load(vae).decode(latent.path(*mean, 4), **options(0.1))
  given = [
    rendering.panel(drawing, name)
    for drawing, name in zip(ends, ('test:0', 'test:3'), strict=True)
  ]
  assert found == sheet(
    (given, 2, 'given'),
    ([rendering.panel(d) for d in drawings], 4, 'temperature 0.1'),
  )


def test_analogies_add_and_subtract(vae, run, originals):
  found = svg(run('analogy', vae, 'test:0', 'test:1', 'test:2', '--count=2'))
  a, b, c = inference.load(vae).encode(originals[:3])[0]
  drawings = inference.load(vae).decode(
    np.stack([a - b + c] * 2), **options(0.1)
  )
  given = [
    rendering.panel(drawing, f'test:{i}')
    for i, drawing in enumerate(originals[:3])
  ]
  assert found == sheet(
    (given, 3, 'given'),
    ([rendering.panel(d) for d in drawings], 2, 'temperature 0.1'),
  )


def test_completions_share_their_beginning(decoder, run, originals):
  found = svg(run('complete', decoder, 'test:1', '--points=3', '--count=4'))
  beginning = originals[1][:3]
  drawings = inference.load(decoder).complete([beginning] * 4, **options(0.4))
  panels = [rendering.panel(drawing, given=3) for drawing in drawings]
  assert found == rendering.svg(
    [rendering.Section(panels, 4, 'test:1, temperature 0.4', same_window=True)]
  )
  assert colours(found) == {rendering.INK, rendering.NEW}


def test_the_pen_stays_down_if_it_shall(decoder, run, tmp_path):
  """The beginning of a file ends with the pen up."""
  path = tmp_path / 'head.json'
  path.write_text(json.dumps([[[0, 0], [30, 0], [30, 40]]]))
  texts = [
    svg(run('complete', decoder, path, '--count=1', *option))
    for option in ((), ('--pen_down',))
  ]
  beginning = np.array([[30, 0, 0], [0, 40, 0]], np.float32)
  for text, lifted in zip(texts, (1, 0), strict=True):
    beginning[-1, 2] = lifted
    (drawing,) = inference.load(decoder).complete([beginning], **options(0.4))
    panel = rendering.panel(drawing, given=2)
    assert text == rendering.svg(
      [
        rendering.Section(
          [panel], 1, 'head.json, temperature 0.4', same_window=True
        )
      ]
    )
  assert texts[0] != texts[1]


def test_a_conditional_model_completes_too(vae, run, originals):
  text = svg(run('complete', vae, 'test:1', '--points=3', '--count=4'))
  sketcher = inference.load(vae)
  beginning = originals[1][:3]
  whole = beginning.copy()
  whole[-1, 2] = 1
  mean, sigma = sketcher.encode([whole])
  z = sketcher.sample_posterior(
    mean.repeat(4, 0), sigma.repeat(4, 0), jax.random.key(0)
  )
  drawings = inference.load(vae).complete([beginning] * 4, **options(0.4), z=z)
  panels = [rendering.panel(drawing, given=3) for drawing in drawings]
  assert text == rendering.svg(
    [rendering.Section(panels, 4, 'test:1, temperature 0.4', same_window=True)]
  )


def test_predictions_are_drawn_and_saved(decoder, run, originals):
  paths = run('predict', decoder, 'test:0', '--count=5')
  text = svg(paths)
  assert paths[2].name == 'out.npz'
  drawing = originals[0]
  (prediction,) = inference.load(decoder).predict([drawing])
  with np.load(paths[2]) as saved:
    assert len(saved['weights']) == len(drawing) + 1
    for name in saved.files:
      np.testing.assert_allclose(
        saved[name], getattr(prediction, name), rtol=1e-5
      )
  root = ET.fromstring(text)
  titles = [t.text for t in root.iter(PATH.replace('path', 'text'))]
  assert len(titles) == 1 + 5
  state = ('draws', 'lifts', 'ends')[np.argmax(prediction.pens[0])]
  assert any(title.startswith(f'0: {state} ') for title in titles)
  assert colours(text) == {rendering.INK, rendering.FAINT}
  assert list(root.iter(PATH.replace('path', 'ellipse')))


def test_classes_are_those_of_the_inputs(classes, run, records):
  """Unless a category is named."""
  sketcher = inference.load(classes)
  drawing, category = records[1]['strokes'], records[1]['category']
  assert sketcher.classes == ('cat', 'pig')
  own = ('cat', 'pig').index(category)
  other = f'--category={("pig", "cat")[own]}'
  for option, label in (((), own), ((other,), 1 - own)):
    text = svg(run('denoise', classes, 'test:1', *option))
    (denoised,) = inference.load(classes).decode(
      sketcher.encode([drawing])[0],
      **options(0.1),
      labels=np.array([label], np.int32),
    )
    panels = [
      rendering.panel(drawing, 'test:1'),
      rendering.panel(denoised, given=0),
    ]
    assert text == sheet((panels, 2, 'temperature 0.1'))


def test_files_of_drawings_are_read(vae, run, tmp_path):
  lines = strokes.to_lines(some_drawings(1, seed=5)[0])
  quickdraw = [[line[:, 0].tolist(), line[:, 1].tolist()] for line in lines]
  record = {'word': 'cat', 'key_id': '7', 'drawing': quickdraw}
  one = tmp_path / 'one.ndjson'
  one.write_text(json.dumps(record) + '\n')
  three = tmp_path / 'three.ndjson'
  three.write_text((json.dumps(record) + '\n') * 3)
  text = svg(run('denoise', vae, one))
  # The same drawing under another title.
  third = svg(run('denoise', vae, f'{three}:2'))
  assert third.replace('three.ndjson:2', 'one.ndjson') == text

  # A drawing that the command has drawn itself: the SVG of one alone.
  drawn, *_ = run('sample', vae, '--count=1', output='drawn')
  (sketch,) = file_formats.read(drawn)
  found = svg(run('denoise', vae, drawn))
  mean, _ = inference.load(vae).encode([sketch.strokes])
  panels = [
    rendering.panel(sketch.strokes, 'drawn.svg'),
    rendering.panel(*inference.load(vae).decode(mean, **options(0.1)), given=0),
  ]
  assert found == sheet((panels, 2, 'temperature 0.1'))


@pytest.mark.parametrize(
  ('workdir', 'arguments', 'message'),
  [
    ('vae', ['sample', 'test:1'], 'sample takes no input'),
    ('vae', ['denoise'], 'denoise needs an input, such as test:12'),
    ('vae', ['denoise', 'test:5'], 'test:5: there are 5, from 0 to 4'),
    ('vae', ['denoise', 'test:3-2'], 'test:3-2: there are 5, from 0 to 4'),
    ('vae', ['denoise', 'train:0'], "no split 'train'"),
    (
      'vae',
      ['denoise', 'absent.svg'],
      'absent.svg is not a file: pass one, or',
    ),
    (
      'vae',
      ['interpolate', 'test:0'],
      'takes two or four latent',
    ),
    (
      'vae',
      ['analogy', 'test:0-1'],
      'analogy takes three inputs, not 2: A B C',
    ),
    ('vae', ['predict', 'test:0-1'], 'predict takes one drawing, not 2'),
    ('vae', ['decode', 'test:0'], 'test:0 is a drawing: pass latent vectors'),
    ('vae', ['sample', '--temperature=0'], 'choose greedy'),
    ('vae', ['sample', '--temperature=warm'], 'could not convert'),
    ('vae', ['sample', '--count=0'], '--count=0 is too few for sample'),
    ('vae', ['sample', '--category=cat'], "category='cat' is none of"),
    ('vae', ['complete', 'test:0', '--points=0'], '--points=0: pass 1 or more'),
    ('vae', ['draw'], 'invalid choice'),
    ('decoder', ['denoise', 'test:0'], 'this model has no encoder'),
    ('classes', ['sample', '--category=dog'], 'cat, pig (--category)'),
  ],
)
def test_what_cannot_be_drawn_is_a_clear_error(
  workdir, arguments, message, request, tmp_path, capsys
):
  directory = request.getfixturevalue(workdir)
  with pytest.raises(SystemExit) as error:
    sample.main(
      [*arguments, f'--workdir={directory}', f'--output={tmp_path / "out"}']
    )
  assert error.value.code == 2
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_an_error_at_once(capsys):
  with pytest.raises(SystemExit):
    sample.main(['sample', '--workdir=absent', '--output=absent/out.svg'])
  error = capsys.readouterr().err
  assert '--output=absent/out.svg: its directory does not exist' in error


def test_latent_vectors_are_no_drawings(vae, tmp_path, capsys):
  np.savez(tmp_path / 'z.npz', z=np.zeros((101, 4), np.float32))
  for arguments, message in (
    *(
      ([mode, f'{tmp_path / "z.npz"}:0'], 'z.npz:0 is a latent vector')
      for mode in ('denoise', 'reconstruct', 'complete', 'predict', 'encode')
    ),
    (['decode', str(tmp_path / 'z.npz')], 'choose 100 at most, as in'),
  ):
    with pytest.raises(SystemExit):
      sample.main(
        [*arguments, f'--workdir={vae}', f'--output={tmp_path / "out"}']
      )
    assert message in capsys.readouterr().err


def test_as_a_program(decoder, run, tmp_path):
  expected = svg(run('sample', decoder, output='called'))
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'sketch_rnn.sample',
      'sample',
      f'--workdir={decoder}',
      f'--output={tmp_path / "program.svg"}',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  paths = [pathlib.Path(line) for line in done.stdout.splitlines()]
  assert [path.name for path in paths] == ['program.svg', 'program.png']
  assert svg(paths) == expected

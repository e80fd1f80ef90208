"""Drawings of waves equal those of the Sketcher, in any batch and in pieces."""

import demo_workdirs
import jax
import numpy as np
import pytest

from demo import queues
from demo import sketching
from sketch_rnn import generation
from sketch_rnn import strokes

SAMPLING = generation.Sampling(0.7, choices='js')
GREEDY = generation.Sampling(1.0, greedy=True, choices='js')


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
  return sketching.load(
    demo_workdirs.sketcher(tmp_path_factory.mktemp('runs') / 'vae')
  )


@pytest.fixture(scope='module')
def decoder(tmp_path_factory):
  """With classes, and without latent vectors."""
  return sketching.load(
    demo_workdirs.sketcher(
      tmp_path_factory.mktemp('runs') / 'decoder',
      conditional=False,
      num_classes=2,
    )
  )


def beginning(count, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.normal(0, demo_workdirs.SCALE, (count, 3)).astype(np.float32)
  rows[:, 2] = rng.random(count) < 0.3
  return rows


class Asked:
  """A request outside of any queue, and its answers."""

  def __init__(self, job):
    self.answers = []
    self.request = queues.Request(job, self.answers.append, lambda _: None)

  @property
  def parts(self):
    """The streamed points, joined: f32[N, 3] of each drawing."""
    assert isinstance(self.answers[-1], queues.Done)
    count = self.request.job.count
    streamed = [parts for parts in self.answers[:-1]]
    return [
      np.concatenate([np.zeros((0, 3))] + [parts[i] for parts in streamed])
      for i in range(count)
    ]

  @property
  def value(self):
    (last,) = self.answers
    return last.value


def run(engine, *jobs):
  """All jobs at once, to their ends."""
  asked = [Asked(job) for job in jobs]
  engine.accept([one.request for one in asked])
  while engine.advance():
    pass
  return asked


def assert_close(found, wanted):
  assert [len(x) for x in found] == [len(x) for x in wanted]
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(a[:, 2], b[:, 2])
    np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize('sampling', [SAMPLING, GREEDY])
@pytest.mark.parametrize('given', [0, 1, 7])
def test_streamed_points_are_those_of_the_sketcher(vae, sampling, given):
  start = beginning(given)
  job = sketching.Sample(3, 5, sampling, beginning=start, stream=True)
  (asked,) = run(vae, job)
  whole = vae.sketcher.complete(
    [start] * 3, key=jax.random.key(5), sampling=sampling
  )
  assert_close(asked.parts, [one[given:] for one in whole])
  assert len(asked.answers) > 2  # In several pieces.


def test_point_by_point_is_at_once(vae):
  """To the last bit: the batches are of the same size."""
  start = beginning(5)
  (streamed,) = run(
    vae, sketching.Sample(4, 1, SAMPLING, beginning=start, stream=True)
  )
  (whole,) = run(vae, sketching.Sample(4, 1, SAMPLING, beginning=start))
  for a, b in zip(streamed.parts, whole.value, strict=True):
    np.testing.assert_array_equal(np.concatenate([start, a]), b)


def test_in_company_is_alone(vae):
  z = np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32)
  jobs = [
    sketching.Sample(2, 1, SAMPLING, beginning=beginning(3), stream=True),
    sketching.Sample(5, 2, SAMPLING, beginning=beginning(20, 1), stream=True),
    sketching.Sample(2, 1, GREEDY, beginning=beginning(4, 2), stream=True),
    sketching.Sample(2, 3, SAMPLING, z=z, stream=True),
    sketching.Sample(
      3, 9, SAMPLING, beginning=beginning(9, 4), max_points=6, stream=True
    ),
  ]
  for job, one in zip(jobs, run(vae, *jobs), strict=True):
    (alone,) = run(vae, job)
    assert_close(one.parts, alone.parts)


def test_temperatures_share_a_wave(vae):
  """One of three drawings at each temperature is the drawing alone."""
  jobs = [
    sketching.Sample(3, 7, sampling, beginning=beginning(4))
    for sampling in (
      generation.Sampling(0.1, choices='js'),
      GREEDY,
      SAMPLING,
      generation.Sampling(1.9, choices='js'),
    )
  ]
  asked = [Asked(job) for job in jobs]
  vae.accept([one.request for one in asked])
  vae.advance()
  assert len(vae._waves) == 1
  while vae.advance():
    pass
  for job, one in zip(jobs, asked, strict=True):
    wanted = vae.sketcher.complete(
      [job.beginning] * 3, key=jax.random.key(7), sampling=job.sampling
    )
    assert_close(one.value, wanted)
  first, *others = [one.value[0] for one in asked]
  assert not any(np.array_equal(first, other) for other in others)


def test_more_than_fits_into_a_wave_or_into_all_waves(vae):
  jobs = [
    sketching.Sample(20, i, generation.Sampling(0.3 + i / 10, choices='js'))
    for i in range(10)
  ]
  jobs += [sketching.Sample(12, i, SAMPLING) for i in range(4)]
  for job, one in zip(jobs, run(vae, *jobs), strict=True):
    wanted = vae.sketcher.sample(
      job.count, key=jax.random.key(job.seed), sampling=job.sampling
    )
    assert_close(one.value, wanted)


def test_z_and_classes_are_those_that_were_asked_for(vae, decoder):
  z = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
  (asked,) = run(vae, sketching.Sample(3, 2, SAMPLING, z=z))
  assert_close(
    asked.value,
    vae.sketcher.decode(z, key=jax.random.key(2), sampling=SAMPLING),
  )
  found = run(
    decoder,
    *[sketching.Sample(2, 2, SAMPLING, label=label) for label in (0, 1)],
  )
  for label, one in enumerate(found):
    wanted = decoder.sketcher.sample(
      2,
      key=jax.random.key(2),
      sampling=SAMPLING,
      labels=np.full(2, label, np.int32),
    )
    assert_close(one.value, wanted)
  assert not np.array_equal(found[0].value[0], found[1].value[0])


@pytest.mark.parametrize('max_points', [1, 6])
def test_no_more_points_than_asked_for(vae, max_points):
  start = beginning(8)
  job = sketching.Sample(
    3, 4, SAMPLING, beginning=start, max_points=max_points, stream=True
  )
  (asked,) = run(vae, job)
  whole = vae.sketcher.complete(
    [start] * 3, key=jax.random.key(4), sampling=SAMPLING
  )
  assert_close(asked.parts, [one[8 : 8 + max_points] for one in whole])


def test_a_beginning_that_leaves_one_point(vae):
  start = beginning(vae.length - 1)
  (asked,) = run(
    vae, sketching.Sample(1, 0, SAMPLING, beginning=start, stream=True)
  )
  assert len(asked.parts[0]) <= 1


def test_who_cancels_hears_nothing_more_and_does_not_hold_up_others(vae):
  jobs = [
    sketching.Sample(2, i, SAMPLING, beginning=beginning(3, i), stream=True)
    for i in range(3)
  ]
  first, second, third = [Asked(job) for job in jobs]
  second.request.cancel()
  vae.accept([first.request, second.request, third.request])
  vae.advance()
  count = len(first.answers)
  assert count
  first.request.cancel()
  while vae.advance():
    pass
  assert len(first.answers) == count
  assert not second.answers
  (alone,) = run(vae, jobs[2])
  assert_close(third.parts, alone.parts)


def test_drawings_are_encoded_together_as_each_alone(vae):
  drawings = [beginning(count, count) for count in range(4, 17)]
  for one in drawings:
    one[-1, 2] = 1
  jobs = [sketching.Encode([one]) for one in drawings]
  jobs.append(sketching.Encode(drawings[:3]))
  found = run(vae, *jobs)
  mean, sigma = vae.sketcher.encode(drawings)
  for i in range(len(drawings)):
    np.testing.assert_allclose(found[i].value[0], mean[i : i + 1], atol=1e-5)
    np.testing.assert_allclose(found[i].value[1], sigma[i : i + 1], atol=1e-5)
  np.testing.assert_allclose(found[-1].value[0], mean[:3], atol=1e-5)


def test_nothing_is_compiled_after_the_start(vae, caplog):
  """Whatever is asked for, its shapes have been there."""
  vae.compile()
  with jax.log_compiles(), caplog.at_level('WARNING'):
    run(
      vae,
      sketching.Sample(3, 1, SAMPLING, beginning=beginning(4), stream=True),
      sketching.Sample(
        1, 1, generation.Sampling(0.2, choices='js'), max_points=3
      ),
      sketching.Sample(11, 1, GREEDY, beginning=beginning(3)),
      sketching.Sample(12, 7, SAMPLING, z=np.zeros((12, 4), np.float32)),
      sketching.Sample(12, 8, SAMPLING),
      sketching.Encode([np.array([[1, 2, 0], [3, 4, 1]], np.float32)] * 3),
    )
    canceled = Asked(sketching.Sample(2, 1, SAMPLING, stream=True))
    vae.accept([canceled.request])
    vae.advance()
    canceled.request.cancel()
    vae.advance()
  compiled = [
    record.getMessage()
    for record in caplog.records
    if 'Compiling' in record.getMessage()
  ]
  assert not compiled, compiled


def test_the_size_is_what_the_model_draws(tmp_path):
  workdir = demo_workdirs.sketcher(tmp_path / 'run')
  assert sketching.load(workdir).size == strokes.SIZE  # Of Kanji it is known.
  config = workdir / 'config.json'
  config.write_text(config.read_text().replace('"kanji"', '"sketches/x"'))
  model = sketching.load(workdir)
  model.compile()
  drawn = model.sketcher.sample(
    32, key=jax.random.key(0), sampling=generation.Sampling(0.5, choices='js')
  )
  sides = [
    np.ptp(np.concatenate(strokes.to_lines(one)), axis=0).max() for one in drawn
  ]
  assert model.size == pytest.approx(np.median(sides), abs=1.5)

"""What was reported is there once, whole, and true."""

import io
import json
import time

import clu.metrics
import flax
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboardX import record_writer

from training import parallel
from training import report as report_lib


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  loss: clu.metrics.Average.from_output('loss')


def update(losses=(1.0,), mask=None, loss=2.0, **norms):
  losses = np.array(losses, np.float32)
  mask = np.ones_like(losses, bool) if mask is None else np.array(mask)
  norms = {'gradient_norm': 1.0, 'parameter_norm': 3.0, **norms}
  return parallel.Update(
    loss=np.float32(loss),
    metrics=Metrics.single_from_model_output(loss=losses, mask=mask),
    **{name: np.float32(x) for name, x in norms.items()},
  )


def summarize(updates, **kwargs):
  kwargs = {
    'first_step': 0,
    'batches': [],
    'last_good': lambda: None,
    **kwargs,
  }
  return report_lib.summarize(updates, **kwargs)


def open_report(workdir, start_step=0):
  return report_lib.Report(
    workdir, start_step=start_step, num_steps=10, batch_size=4
  )


def read_lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  assert text.endswith('\n') or not text
  return [json.loads(line) for line in text.splitlines()]


def test_resumed_run_tells_every_step_once(tmp_path):
  with open_report(tmp_path) as report:
    for step in (2, 4, 6):
      report.scalars(step, {'train/loss': step / 10})
  # It was killed while it wrote step 8, and its checkpoint was of step 4.
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 8, "train/lo')
  with open_report(tmp_path, start_step=4) as report:
    assert [line['step'] for line in read_lines(tmp_path)] == [2, 4]
    for step in (6, 8):
      report.scalars(step, {'train/loss': step / 10})
  assert read_lines(tmp_path) == [
    {'step': step, 'train/loss': step / 10} for step in (2, 4, 6, 8)
  ]
  assert {path.name for path in tmp_path.iterdir()} == {
    'metrics.jsonl',
    'tensorboard',
  }


@pytest.mark.parametrize('rest', ['{"step": 3', '{"step": 3}', '\0\0'])
def test_last_line_that_is_not_whole_is_dropped(tmp_path, rest):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n' + rest)
  with open_report(tmp_path, start_step=2) as report:
    report.scalars(3, {'a': 1})
  assert read_lines(tmp_path) == [{'step': 1}, {'step': 3, 'a': 1.0}]


@pytest.mark.parametrize(
  'line', [b'{"step": 2', b'[]', b'{"stfp": 2}', b'\xff']
)
def test_a_damaged_line_is_set_aside_alone(tmp_path, line, caplog):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
  with open_report(tmp_path, start_step=3):
    assert read_lines(tmp_path) == [{'step': 1}, {'step': 3}]
  assert (tmp_path / 'metrics.damaged.jsonl').read_bytes() == line + b'\n'
  assert f'{path}: damaged, moved to' in caplog.text
  assert 'line 2' in caplog.text


def test_run_from_the_start_drops_all_that_was_told(tmp_path):
  with open_report(tmp_path) as report:
    report.scalars(2, {'a': 1})
  with open_report(tmp_path):
    assert read_lines(tmp_path) == []


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path):
  with open_report(tmp_path) as report:
    report.scalars(1, {'a': 2})
    assert read_lines(tmp_path) == [{'step': 1, 'a': 2.0}]


def test_summary_is_the_mean_over_all_real_tokens():
  updates = [
    update([1.0, 2.0, 100.0], [True, True, False], loss=1.0),
    update([6.0, 100.0, 100.0], [True, False, False], loss=5.0),
  ]
  summary = summarize(updates)
  # Not the mean of the means, which would be 3.75.
  np.testing.assert_allclose(summary['loss'], 3.0, rtol=1e-6)
  assert summary['total_loss'] == 3.0
  assert summary['gradient_norm'] == 1.0
  assert summary['parameter_norm'] == 3.0


@pytest.mark.parametrize(
  ('wrong', 'said'),
  [
    ({'loss': np.nan}, 'the loss of step 8 is nan'),
    ({'loss': np.inf, 'gradient_norm': np.nan}, 'the loss of step 8 is'),
    ({'gradient_norm': np.nan}, 'the gradient norm of step 8 is nan'),
    ({'parameter_norm': np.inf}, 'the parameter norm of step 8 is inf'),
  ],
)
def test_what_is_not_finite_is_an_error(wrong, said):
  batches = {8: {'id': np.array(['dog.jpg', 'cat.jpg'])}}
  with pytest.raises(FloatingPointError) as error:
    summarize(
      [update(), update(**wrong), update(**wrong)],
      first_step=7,
      batches=batches,
      last_good=lambda: 5,
    )
  assert said in str(error.value)
  assert (
    'Examples of its batch: dog.jpg, cat.jpg. '
    'Last good checkpoint: step 5.' in str(error.value)
  )


def test_without_a_checkpoint_the_error_says_none():
  with pytest.raises(FloatingPointError, match='Last good checkpoint: none'):
    summarize([update(loss=np.nan)], batches=[{'id': ['a']}])


def test_speed_does_not_count_what_is_paused(tmp_path, monkeypatch):
  clock, cpu = [100.0], [7.0]
  monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
  monkeypatch.setattr(time, 'process_time', lambda: cpu[0])
  with open_report(tmp_path, start_step=2) as report:
    clock[0] += 2
    with report.paused():
      clock[0] += 50
      cpu[0] += 20  # CPU time counts evaluations, too.
    clock[0] += 1
    cpu[0] += 3
    assert report.progress(8) == {
      'steps_per_second': pytest.approx(6 / 3),
      'examples_per_second': pytest.approx(4 * 6 / 3),
      'cpu_seconds': 23,
    }
    # The next stretch starts here.
    clock[0] += 4
    cpu[0] += 2
    later = report.progress(9)
    assert later['steps_per_second'] == pytest.approx(1 / 4)
    assert later['cpu_seconds'] == 2


def test_tensorboard_shows_what_was_written(tmp_path):
  picture = np.random.default_rng(0).integers(
    0, 256, size=(1, 6, 5, 3), dtype=np.uint8
  )
  with open_report(tmp_path) as report:
    report.scalars(3, {'train/loss': 0.5})
    report.scalars(6, {'train/loss': 0.25})
    report.texts(6, {'captions': '| a | b |'})
    report.images(6, {'picture': picture})
  events = event_accumulator.EventAccumulator(str(tmp_path / 'tensorboard'))
  events.Reload()
  tags = events.Tags()
  assert tags['scalars'] == ['train/loss']
  assert tags['tensors'] == ['captions/text_summary']
  assert tags['images'] == ['picture']
  scalars = [
    (event.step, event.value) for event in events.Scalars('train/loss')
  ]
  assert scalars == [(3, 0.5), (6, 0.25)]
  (text,) = events.Tensors('captions/text_summary')
  assert (text.step, text.tensor_proto.string_val) == (6, [b'| a | b |'])
  (image,) = events.Images('picture')
  assert (image.step, image.width, image.height) == (6, 5, 6)
  shown = np.asarray(PIL.Image.open(io.BytesIO(image.encoded_image_string)))
  np.testing.assert_array_equal(shown, picture[0])


def test_a_full_disk_is_an_error_of_the_one_who_writes(tmp_path, monkeypatch):
  full = open('/dev/full', 'wb')
  monkeypatch.setattr(record_writer, 'open_file', lambda path: full)
  report = open_report(tmp_path)
  with pytest.raises(OSError, match='No space left on device'):
    report.scalars(3, {'loss': 0.5})
  with pytest.raises(OSError, match='No space left on device'), report:
    pass
  with pytest.raises(OSError, match='No space left on device'):
    full.close()


def test_a_damaged_line_does_not_lose_the_time(tmp_path, caplog):
  lines = [
    b'{"step": 10, "train/steps_per_second": 5, "train/cpu_seconds": 3}',
    b'{"step": 20, "tr\xff',
    b'[]',
    b'{"step": 20, "train/steps_per_second": 5, "validation/seconds": 1}',
    b'{"step": 20, "train/cpu_seconds": 4}',
  ]
  (tmp_path / 'metrics.jsonl').write_bytes(b'\n'.join(lines) + b'\n')
  assert report_lib.training_seconds(tmp_path) == 5
  assert 'line 2 is damaged' in caplog.text
  assert report_lib.cpu_seconds(tmp_path) == 7


def test_a_run_without_cpu_time_has_none(tmp_path):
  assert report_lib.cpu_seconds(tmp_path) is None
  line = b'{"step": 10, "train/steps_per_second": 5}\n'
  (tmp_path / 'metrics.jsonl').write_bytes(line)
  assert report_lib.cpu_seconds(tmp_path) is None

"""A file as a camera, in real time; commands before it."""

import json
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from training import released
from video import classify
from video import frames as frames_lib
from video import track
from video.classification import inference as classification
from video.sources import camera
from video.synthetic import gesture_stream
from video.tracking import inference as tracking

RATE = 20.0


@pytest.fixture(autouse=True)
def parsed():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def clip(tmp_path):
  """Twelve frames, each a grey of its own."""
  path = tmp_path / 'clip.mp4'
  greys = np.arange(12, dtype=np.uint8) * 20
  frames = np.broadcast_to(greys[:, None, None, None], (12, 32, 48, 3))
  frames_lib.write(path, frames, rate=RATE)
  return str(path)


def indices(found):
  return [round(float(frame.mean()) / 20) for _, frame in found]


def test_a_file_is_played_in_real_time(clip):
  since, found = time.monotonic(), []
  for moment, frame in camera.frames(clip):
    assert time.monotonic() - since >= moment
    assert frame.shape == (32, 48, 3) and frame.dtype == np.uint8
    found.append((moment, frame))
  # In order, up to the last; a loaded machine may miss some.
  seen = indices(found)
  assert seen == sorted(set(seen)) and seen[-1] == 11
  np.testing.assert_allclose([x for x, _ in found], np.array(seen) / RATE)


def test_a_slow_reader_misses_frames(clip):
  found = []
  for item in camera.frames(clip):
    found.append(item)
    time.sleep(0.2)
  assert 2 <= len(found) < 12
  assert indices(found)[-1] == 11


def test_a_rate_keeps_the_frames_at_its_times(clip):
  found = list(camera.frames(clip, rate=RATE / 2))
  gaps = np.diff([moment for moment, _ in found])
  assert len(found) <= 6 and gaps.min() >= 1.8 / RATE


def test_what_is_no_camera_is_refused(tmp_path):
  with pytest.raises(ValueError, match='neither the number of a camera'):
    next(camera.frames('front'))
  with pytest.raises(ValueError, match='cannot read camera 97|is no camera 97'):
    next(camera.frames('97'))
  broken = tmp_path / 'a.mp4'
  broken.write_bytes(b'no')
  with pytest.raises(ValueError, match='cannot decode'):
    next(camera.frames(str(broken)))


@pytest.mark.parametrize(
  ('arguments', 'value'),
  [
    ([], None),
    (['--camera'], '0'),
    (['--camera=2'], '2'),
    (['--camera=a.mp4'], 'a.mp4'),
  ],
)
def test_the_number_may_be_left_out(arguments, value):
  values = flags.FlagValues()
  found = camera.define_flag(values)
  values(['command', *arguments])
  assert found.value == value


def stream():
  record = gesture_stream.example('test', 0)
  return record, np.repeat(record['frames'], 3, axis=-1)


def test_gestures_before_a_camera_are_those_of_the_file(monkeypatch, capsys):
  """All frames come here, whatever the load of the machine."""
  record, frames = stream()

  def shown(name, *, rate):
    assert (name, rate) == ('0', frames_lib.DEFAULT_RATE)
    return ((i / rate, frame) for i, frame in enumerate(frames))

  monkeypatch.setattr(camera, 'frames', shown)
  path = released.path('gesture_stream')
  with flagsaver.as_parsed(camera='0', online='true', json='true'):
    assert classify.use(path, []) == 0
  lines = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
  expected = classify._changes(classification.load(path), record, 1)
  assert [x['class'] for x in lines] == [x['class'] for x in expected]
  np.testing.assert_allclose(
    [x['seconds'] for x in lines],
    [x['frame'] / frames_lib.DEFAULT_RATE for x in expected],
    atol=1e-3,
  )


def test_boxes_before_a_camera_are_those_of_the_clip(
  monkeypatch, capsys, tmp_path
):
  rng = np.random.default_rng(0)
  frames = rng.integers(256, size=(4, 64, 64, 3), dtype=np.uint8)
  monkeypatch.setattr(
    camera, 'frames', lambda name: ((i / 4, x) for i, x in enumerate(frames))
  )
  path = released.path('occlusion_track')
  output = tmp_path / 'out.mp4'
  with flagsaver.as_parsed(camera='0', box='10,12,20,16', output=str(output)):
    assert track.use(path, []) == 0
  rows = [
    [float(x) for x in line.split('\t')]
    for line in capsys.readouterr().out.splitlines()
  ]
  tracker = tracking.load(path)
  box = np.array([10, 12, 20, 16], np.float32)
  state, boxes = tracker.start(frames[0], box), [box]
  for frame in frames[1:]:
    state, box = tracker.step(state, frame)
    boxes.append(box)
  np.testing.assert_allclose(rows, np.c_[np.arange(4) / 4, boxes], atol=0.06)
  assert len(frames_lib.read(output)) == 4


def test_wrong_use_of_a_camera_says_what_to_do(tmp_path):
  path = released.path('gesture_stream')
  with flagsaver.as_parsed(camera='0'):
    with pytest.raises(ValueError, match='--camera is for --online alone'):
      classify.use(path, [])
    with pytest.raises(ValueError, match='--box=x,y,width,height'):
      track.use(path, [])

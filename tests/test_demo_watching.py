"""The camera's WebSocket, before the released models."""

import io
import json

import jax
import numpy as np
import PIL.Image
import pytest
from starlette import testclient

from demo import messages
from demo import server
from demo import studio as studio_lib
from demo import watchers
from demo import watching
from training import released
from video.classification import inference as classification
from video.synthetic import gesture_stream
from video.tracking import correlation
from video.tracking import inference as tracking

SOCKET = 'ws://localhost/api/watch'
ORIGIN = {'origin': 'http://localhost'}
LIMITS = messages.Limits(
  message_bytes=300, image_bytes=30_000, image_pixels=10_000
)
GESTURES, TARGETS = 'gesture_stream', 'occlusion_track'


@pytest.fixture(scope='module')
def client(tmp_path_factory):
  paths = [released.path(name) for name in (GESTURES, TARGETS)]
  studio = studio_lib.Studio(paths)
  studio.start()
  studio.wait()
  assert [one.error for one in studio.statuses] == [None] * 2
  app = server.create(studio, limits=LIMITS, page=tmp_path_factory.mktemp('p'))
  yield testclient.TestClient(app, 'http://localhost')
  studio.stop()


def png(frame):
  file = io.BytesIO()
  PIL.Image.fromarray(frame).save(file, 'png')
  return file.getvalue()


def answers(client, message, frames):
  """One for each frame, up to an error."""
  found = []
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    socket.send_text(
      message if isinstance(message, str) else json.dumps(message)
    )
    for frame in frames:
      socket.send_bytes(frame)
      found.append(socket.receive_json())
      if 'error' in found[-1]:
        break
  return found


def noise(count=3, side=64):
  rng = np.random.default_rng(0)
  return list(rng.integers(256, size=(count, side, side, 3), dtype=np.uint8))


def test_models_that_watch_are_listed(client):
  found = client.get('/api/models').json()['watchers']
  assert [(x['name'], x['kind']) for x in found] == [
    (GESTURES, 'gestures'),
    (TARGETS, 'targets'),
  ]
  assert all(x['rate'] > 0 for x in found)


def test_gestures_are_those_of_the_classifier(client):
  record = gesture_stream.example('test', 0)
  frames = np.repeat(record['frames'], 3, axis=-1)[:10]
  found = answers(client, {'model': GESTURES}, map(png, frames))
  classifier = classification.load(GESTURES)
  expected = classifier.online(record['frames'][:10])
  for answer, probabilities in zip(found, expected, strict=True):
    classes = answer['classes']
    best = np.argsort(-probabilities, kind='stable')[: len(classes)]
    assert len(classes) == 5
    assert classes[0]['class'] == classifier.class_names[best[0]]
    np.testing.assert_allclose(
      [x['probability'] for x in classes], probabilities[best], atol=1e-3
    )


def test_boxes_are_those_of_the_tracker(client):
  frames, box = noise(), [10, 12, 20, 16]
  found = answers(client, {'model': TARGETS, 'box': box}, map(png, frames))
  tracker = tracking.load(TARGETS)
  state = tracker.start(frames[0], np.array(box, np.float32))
  expected = [box]
  for frame in frames[1:]:
    state, box, *_ = tracker.step(state, frame)
    expected.append(box)
  np.testing.assert_allclose([x['box'] for x in found], expected, atol=0.06)


def test_sessions_do_not_mix(client):
  """Two at once, frame by frame in turn."""
  frames = noise(4)
  boxes = ([10, 12, 20, 16], [30, 30, 12, 12])
  alone = [
    answers(client, {'model': TARGETS, 'box': box}, map(png, frames))
    for box in boxes
  ]
  together = [[], []]
  with (
    client.websocket_connect(SOCKET, headers=ORIGIN) as one,
    client.websocket_connect(SOCKET, headers=ORIGIN) as other,
  ):
    for socket, box in zip((one, other), boxes, strict=True):
      socket.send_json({'model': TARGETS, 'box': box})
    for frame in frames:
      for socket in (one, other):
        socket.send_bytes(png(frame))
      for socket, found in zip((one, other), together, strict=True):
        found.append(socket.receive_json())
  assert together == alone


@pytest.mark.parametrize(
  ('message', 'frames', 'error'),
  [
    ('no', [], 'this is not JSON'),
    ({'model': GESTURES, 'colour': 1}, [], 'no such field: "colour"'),
    ({'model': 'other'}, [], 'there is no such model'),
    ({}, [], 'model is missing'),
    ({'model': 'x' * 400}, [], 'more than 300 bytes'),
    ({'model': TARGETS, 'box': [1, 2]}, [], 'box must be four numbers'),
    ({'model': TARGETS}, noise(), 'a tracker needs a box'),
    ({'model': TARGETS, 'box': [900, 0, 9, 9]}, noise(), 'box'),
    ({'model': GESTURES}, [b'no'], 'not a readable image'),
    ({'model': GESTURES}, [bytes(40_000)], 'more than 30000 bytes'),
    (
      {'model': TARGETS, 'box': [9, 9, 20, 20]},
      [*noise(1), *noise(1, side=48)],
      'resize the frames to one size',
    ),
  ],
)
def test_what_is_wrong_is_said(client, message, frames, error):
  frames = [x if isinstance(x, bytes) else png(x) for x in frames] or [b'']
  found = answers(client, message, frames)
  assert error in found[-1]['error']
  # The server goes on.
  assert 'classes' in answers(client, {'model': GESTURES}, [png(noise()[0])])[0]


def test_too_many_cameras_are_busy(client, monkeypatch):
  monkeypatch.setattr(watching, 'MAX_SESSIONS', 0)
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    assert socket.receive_json()['busy']


def test_the_certainty_is_beside_the_box(monkeypatch):
  """Of a tracker that states one, as in its stream."""
  network = correlation.Tracker(depth=10, side=64, level_side=16, features=4)
  frames, box = noise(4), np.array([10, 12, 20, 16], np.float32)
  variables = jax.jit(network.init)(
    jax.random.key(0), np.stack(frames[:2])[None], box[None]
  )
  tracker = tracking.Tracker(network, variables, longest_side=640)
  monkeypatch.setattr(tracking, 'load', lambda workdir: tracker)
  session = watchers.Targets(None).start(frames[0], box)
  state = tracker.start(frames[0], box)
  for t, frame in enumerate(frames):
    if t:
      state, box = tracker.step(state, frame)
    answer = session(frame)
    np.testing.assert_allclose(answer['box'], box, atol=0.06)
    assert answer['certainty'] == round(state.certainty, 4)

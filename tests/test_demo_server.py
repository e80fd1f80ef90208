"""The server's routes on small models: what they answer, and what not."""

import io
import json
import threading
import zlib

import demo_workdirs
import jax
import numpy as np
import PIL.Image
import pytest
from starlette import testclient
from starlette import websockets

from captioning import inference
from captioning import vocabulary
from demo import guard
from demo import messages
from demo import queues
from demo import server
from demo import sketching
from demo import studio as studio_lib
from sketch_rnn import generation
from sketch_rnn import latent
from sketch_rnn import strokes
from video import frames as frames_lib
from video import sampling
from video.captioning import inference as caption_inference
from vision import images

LIMITS = messages.Limits(
  points=400,
  lines=9,
  open=3,
  message_bytes=30_000,
  image_bytes=60_000,
  image_pixels=10_000,
  video_bytes=100_000,
  video_frames=40,
)
SOCKET = 'ws://localhost/api/draw'
ORIGIN = {'origin': 'http://localhost'}
JSON = {'content-type': 'application/json'}
SAMPLING = generation.Sampling(0.7, choices='js')
# Hands that draw: far more points than are needed, in pixels of the space.
T = np.linspace(0, 5, 60)
CIRCLE = np.stack([128 + 90 * np.cos(T), 120 + 80 * np.sin(T)], 1).round(2)
SMILE = np.stack([90 + 15 * T, 150 + 20 * np.sin(T / 1.6)], 1).round(2)
HEAD = [CIRCLE.tolist(), SMILE.tolist()]
BOX = [[[30, 30], [200, 30], [200, 180.5], [30, 180], [30, 30]]]


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  return {
    'vae': demo_workdirs.sketcher(root / 'vae'),
    'decoder': demo_workdirs.sketcher(
      root / 'decoder', conditional=False, num_classes=2
    ),
    'photos': demo_workdirs.captioner(root / 'photos'),
    'clips': demo_workdirs.video_captioner(root / 'clips'),
  }


@pytest.fixture(scope='module')
def studio(workdirs):
  studio = studio_lib.Studio(list(workdirs.values()))
  studio.start()
  studio.wait()
  assert [one.error for one in studio.statuses] == [None] * 4
  yield studio
  studio.stop()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """A page's files, and what must never be sent."""
  page = tmp_path_factory.mktemp('package') / 'page'
  (page / 'inner').mkdir(parents=True)
  for name in ('index.html', 'main.js', 'style.css', 'mark.svg', 'notes.txt'):
    (page / name).write_text(f'this is {name}')
  (page / 'inner' / 'main.js').write_text('inner')
  (page.parent / 'secret.js').write_text('secret')
  return page


@pytest.fixture(scope='module')
def client(studio, page):
  app = server.create(studio, limits=LIMITS, page=page)
  # Not as a context: its end would stop the studio.
  return testclient.TestClient(
    app, 'http://localhost', raise_server_exceptions=False
  )


@pytest.fixture(scope='module')
def sketchers(studio):
  return {name: it.model.sketcher for name, it in studio.sketchers.items()}


def post(client, path, **message):
  return client.post(path, json=message)


def draw(client, *requests):
  """The endings of each request over one WebSocket: [x, y, pen] lists."""
  found = {one['id']: [[] for _ in range(one['count'])] for one in requests}
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    for one in requests:
      socket.send_json(one)
    waiting = set(found)
    while waiting:
      received = socket.receive_json()
      assert 'error' not in received, received
      for ending, points in zip(
        found[received['id']], received.get('points', ()), strict=False
      ):
        ending += points
      if 'done' in received:
        waiting.remove(received['id'])
  return [found[one['id']] for one in requests]


def request(number=1, model='vae', lines=HEAD, count=3, **others):
  return {
    'id': number,
    'model': model,
    'lines': lines,
    'count': count,
    'temperature': 0.7,
    'seed': 5,
    **others,
  }


def simplified(lines):
  return strokes.from_lines([strokes.simplify(np.array(one)) for one in lines])


def places(drawing, given, start):
  """Positions of the new points of f32[N, 3], from the last given one."""
  return np.asarray(start) + np.cumsum(drawing[given:, :2], axis=0)


# Drawing on.


@pytest.mark.parametrize('count', [1, 3, 12])
def test_the_stream_is_what_the_sketcher_draws(client, sketchers, count):
  (endings,) = draw(client, request(count=count))
  start = simplified(HEAD)
  assert 5 < len(start) < 30  # It was simplified.
  wanted = sketchers['vae'].complete(
    [start] * count, key=jax.random.key(5), sampling=SAMPLING
  )
  assert len({len(ending) for ending in endings}) > 1 or count == 1
  for ending, drawing in zip(endings, wanted, strict=True):
    found = np.array(ending).reshape(-1, 3)
    assert len(found) == len(drawing) - len(start)
    np.testing.assert_array_equal(found[:, 2], drawing[len(start) :, 2])
    np.testing.assert_allclose(
      found[:, :2], places(drawing, len(start), SMILE[-1]), atol=0.01
    )


def test_together_is_alone(client):
  requests = [
    request(1),
    request(2, lines=BOX, count=2, seed=7),
    request(3, 'decoder', temperature=0, count=1, category='pig'),
  ]
  together = draw(client, *requests)
  alone = [draw(client, one)[0] for one in requests]
  for found, wanted in zip(together, alone, strict=True):
    for a, b in zip(found, wanted, strict=True):
      np.testing.assert_allclose(
        np.array(a).reshape(-1, 3), np.array(b).reshape(-1, 3), atol=0.01
      )


def test_temperature_zero_is_greedy_and_classes_are_labels(client, sketchers):
  endings = draw(
    client,
    *[
      request(i, 'decoder', temperature=0, count=1, category=category)
      for i, category in enumerate(demo_workdirs.CATEGORIES)
    ],
  )
  start = simplified(HEAD)
  wanted = sketchers['decoder'].complete(
    [start] * 2,
    key=jax.random.key(0),
    sampling=generation.Sampling(greedy=True),
    labels=np.arange(2),
  )
  for (ending,), drawing in zip(endings, wanted, strict=True):
    np.testing.assert_allclose(
      np.array(ending)[:, :2], places(drawing, len(start), SMILE[-1]), atol=0.01
    )


def test_a_line_that_is_not_finished_goes_on_from_its_last_point(
  client, sketchers
):
  (endings,) = draw(client, request(pen_down=True))
  start = simplified(HEAD)
  start[-1, 2] = 0
  wanted = sketchers['vae'].complete(
    [start] * 3, key=jax.random.key(5), sampling=SAMPLING
  )
  for ending, drawing in zip(endings, wanted, strict=True):
    assert ending[0] == [*SMILE[-1], 0]
    np.testing.assert_allclose(
      np.array(ending)[1:, :2],
      places(drawing, len(start), SMILE[-1]),
      atol=0.01,
    )


def test_from_nothing_it_begins_in_the_middle(client, sketchers):
  (endings,) = draw(client, request(lines=[], count=2))
  wanted = sketchers['vae'].sample(2, key=jax.random.key(5), sampling=SAMPLING)
  for ending, drawing in zip(endings, wanted, strict=True):
    assert ending[0] == [128, 128, 0]
    np.testing.assert_allclose(
      np.array(ending)[1:, :2], places(drawing, 0, [128, 128]), atol=0.01
    )


def test_no_more_new_points_than_asked_for(client):
  (all_of_them,) = draw(client, request())
  (some,) = draw(client, request(most=4))
  for a, b in zip(some, all_of_them, strict=True):
    assert a == b[:4]


def test_points_come_in_several_messages_in_order(client):
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    socket.send_json(request(8, count=1, lines=BOX))
    received = [socket.receive_json()]
    while 'done' not in received[-1]:
      received.append(socket.receive_json())
  assert len(received) > 2
  assert [set(one) for one in received] == [
    *[{'id', 'points'}] * (len(received) - 1),
    {'id', 'done'},
  ]
  assert 1 <= len(received[0]['points'][0]) <= 4  # The first come soon.


@pytest.fixture
def held(studio):
  """The thread of 'vae' waits until this is set."""
  opened, entered = threading.Event(), threading.Event()
  engine = studio.sketchers['vae'].model
  accept = engine.accept

  def wait(requests):
    entered.set()
    assert opened.wait(60)
    accept(requests)

  engine.accept = wait
  yield opened, entered
  opened.set()
  engine.accept = accept


def test_who_cancels_hears_no_more_of_it(client, held):
  opened, entered = held
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    socket.send_json(request(1))
    assert entered.wait(60)
    socket.send_json({'cancel': 1})
    socket.send_json(request(1, lines=BOX, count=1))  # The number is free.
    # An answer to what is wrong: all before it has been read.
    socket.send_json({'id': 2})
    assert socket.receive_json()['id'] == 2
    opened.set()
    ending, received = [], {}
    while 'done' not in received:
      received = socket.receive_json()
      assert received['id'] == 1
      for points in received.get('points', ()):
        ending += points
  (((wanted,)),) = draw(client, request(1, lines=BOX, count=1))
  np.testing.assert_allclose(ending, wanted, atol=0.01)


def test_numbers_in_use_and_too_many_at_a_time(client, held):
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    for number in (1, 2, 3, 2, 4):
      socket.send_json(request(number))
    received = [socket.receive_json() for _ in range(2)]
  assert received[0] == {
    'id': None,
    'error': 'this id is in use: send another one',
  }
  assert received[1]['id'] == 4 and received[1]['busy'] is True
  assert 'cancel some' in received[1]['error']


def test_a_full_queue_is_busy(client, studio, held):
  opened, entered = held
  worker = studio.sketchers['vae'].worker
  job = sketching.Sample(1, 0, SAMPLING)
  worker.submit(job, print).cancel()
  assert entered.wait(60)  # From here on nothing leaves the queue.
  with pytest.raises(queues.Busy):
    while True:
      worker.submit(job, print).cancel()
  try:
    response = post(client, '/api/encode', model='vae', lines=HEAD)
    assert response.status_code == 503
    assert response.headers['retry-after'] == '1'
    assert response.json()['error'].startswith('busy')
    with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
      socket.send_json(request(1))
      received = socket.receive_json()
    assert received['busy'] is True and received['id'] == 1
  finally:
    opened.set()
  # And then it is not any more.
  for _ in range(1000):
    response = post(client, '/api/encode', model='vae', lines=HEAD)
    if response.status_code == 200:
      return
  pytest.fail('the queue never emptied')


def test_who_leaves_is_not_drawn_for(client, studio, held):
  opened, entered = held
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    socket.send_json(request(1))
    assert entered.wait(60)
  opened.set()
  (endings,) = draw(client, request(2, count=1))
  assert len(endings) == 1


# Latent vectors.


def centred(drawing):
  lines = strokes.to_lines(drawing)
  points = np.concatenate(lines)
  shift = 128 - (points.min(0) + points.max(0)) / 2
  return [line + shift for line in lines]


def assert_drawings(response, wanted):
  assert response.status_code == 200, response.text
  drawings = response.json()['drawings']
  assert len(drawings) == len(wanted)
  for found, drawing in zip(drawings, wanted, strict=True):
    for a, b in zip(found, centred(drawing), strict=True):
      np.testing.assert_allclose(a, b, atol=0.01)


@pytest.mark.parametrize('model', ['vae', 'decoder'])
def test_drawings_from_nothing_are_the_sketchers(client, sketchers, model):
  category = {'category': 'pig'} if model == 'decoder' else {}
  response = post(
    client,
    '/api/sample',
    model=model,
    count=3,
    temperature=0.7,
    seed=5,
    **category,
  )
  wanted = sketchers[model].sample(
    3,
    key=jax.random.key(5),
    sampling=SAMPLING,
    labels=np.ones(3, np.int32) if category else None,
  )
  assert_drawings(response, wanted)


def test_a_drawing_is_mimicked_as_the_sketcher_reconstructs(client, sketchers):
  """Several times, each from another sample of its posterior."""
  response = post(
    client,
    '/api/mimic',
    model='vae',
    lines=HEAD,
    count=4,
    temperature=0.7,
    seed=5,
  )
  wanted = sketchers['vae'].reconstruct(
    [simplified(HEAD)], 4, key=jax.random.key(5), sampling=SAMPLING
  )
  assert_drawings(response, wanted)
  drawings = response.json()['drawings']
  assert len({json.dumps(drawing) for drawing in drawings}) == 4


def test_encode_is_the_sketchers(client, sketchers):
  response = post(client, '/api/encode', model='vae', lines=HEAD)
  mean, sigma = sketchers['vae'].encode([simplified(HEAD)])
  np.testing.assert_allclose(response.json()['mean'], mean[0], atol=1e-6)
  np.testing.assert_allclose(response.json()['sigma'], sigma[0], atol=1e-6)


@pytest.mark.parametrize('temperature', [0, 0.7])
def test_decode_is_the_sketchers(client, sketchers, temperature):
  z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  response = post(
    client,
    '/api/decode',
    model='vae',
    z=z.tolist(),
    temperature=temperature,
    seed=5,
  )
  sampling = SAMPLING if temperature else generation.Sampling(greedy=True)
  wanted = sketchers['vae'].decode(z, key=jax.random.key(5), sampling=sampling)
  assert_drawings(response, wanted)


def test_interpolate_is_the_path_of_latent(client, sketchers):
  response = post(
    client,
    '/api/interpolate',
    model='vae',
    first=HEAD,
    second=BOX,
    steps=5,
    temperature=0.7,
    seed=5,
  )
  mean, _ = sketchers['vae'].encode([simplified(HEAD), simplified(BOX)])
  wanted = sketchers['vae'].decode(
    latent.path(mean[0], mean[1], 5), key=jax.random.key(5), sampling=SAMPLING
  )
  assert_drawings(response, wanted)


@pytest.mark.parametrize('share', [0, 0.37, 1])
def test_a_share_of_the_way_is_one_drawing(client, sketchers, share):
  response = post(
    client,
    '/api/interpolate',
    model='vae',
    first=HEAD,
    second=BOX,
    share=share,
    temperature=0.7,
    seed=5,
  )
  mean, _ = sketchers['vae'].encode([simplified(HEAD), simplified(BOX)])
  wanted = sketchers['vae'].decode(
    latent.slerp(*mean, share)[None],
    key=jax.random.key(5),
    sampling=SAMPLING,
  )
  assert_drawings(response, wanted)


def test_analogy_is_a_minus_b_plus_c(client, sketchers):
  smile = [SMILE.tolist()]
  response = post(
    client,
    '/api/analogy',
    model='vae',
    a=HEAD,
    b=BOX,
    c=smile,
    temperature=0.7,
    seed=5,
  )
  (a, b, c), _ = sketchers['vae'].encode(
    [simplified(one) for one in (HEAD, BOX, smile)]
  )
  wanted = sketchers['vae'].decode(
    (a - b + c)[None], key=jax.random.key(5), sampling=SAMPLING
  )
  assert_drawings(response, wanted)


# Captions.


def png(height, width, seed=0):
  """Coarse colours."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (3, 3, 3), np.uint8)
  file = io.BytesIO()
  image = PIL.Image.fromarray(coarse).resize((width, height), 0)
  image.save(file, 'png')
  return file.getvalue()


def send_photo(client, contents, kind='image/png', model='photos'):
  return client.post(
    f'/api/caption?model={model}',
    content=contents,
    headers={'content-type': kind},
  )


@pytest.mark.parametrize(('height', 'width'), [(40, 60), (30, 18), (16, 16)])
def test_captions_and_attention_are_those_of_captioning(
  client, workdirs, height, width
):
  contents = png(height, width)
  answer = send_photo(client, contents).json()
  captioner = inference.load(workdirs['photos'])
  photo = images.decode(contents)
  image = images.for_evaluation(photo, resize=18, crop=16)
  ((best, *others),) = captioner.caption([photo])
  assert [one['text'] for one in answer['captions']] == [
    one.text for one in (best, *others)
  ]
  np.testing.assert_allclose(
    [one['log_prob'] for one in answer['captions']],
    [one.log_prob for one in (best, *others)],
    rtol=1e-4,
  )
  np.testing.assert_allclose(
    [one['probability'] for one in answer['captions']],
    np.exp([one.log_prob for one in (best, *others)]),
    rtol=1e-4,
  )
  words = answer['captions'][0]['words']
  assert ' '.join(words) == best.text
  attention = answer['attention']
  assert (attention['rows'], attention['columns']) == (2, 2)
  np.testing.assert_allclose(
    attention['weights'],
    captioner.attention(photo, best)[: len(words)],
    atol=1e-5,
  )
  # What the model saw, cut out of the photograph as it is shown.
  shown = answer['shown']
  resized = images.resize_short_side(photo, 18)
  rows, columns = resized.shape[:2]
  top, left = shown['y'] * rows, shown['x'] * columns
  assert (top, left) == pytest.approx((round(top), round(left)))
  np.testing.assert_array_equal(
    resized[round(top) :, round(left) :][:16, :16], image
  )
  assert shown['height'] * rows == pytest.approx(16)
  assert shown['width'] * columns == pytest.approx(16)


def test_photographs_together_are_described_as_each_alone(studio):
  model = studio.captioners['photos'].model
  pictures = [
    model.preprocess(images.decode(png(20, 24, seed)))
    for seed in range(model.max_batch_size - 1)
  ]
  together = model(pictures)
  for picture, found in zip(pictures, together, strict=True):
    (alone,) = model([picture])
    assert [c.text for c in found.captions] == [c.text for c in alone.captions]
    np.testing.assert_allclose(found.attention, alone.attention, atol=1e-5)


def header_of(width, height):
  """A PNG that says it is large, with nothing in it."""
  image = bytearray(png(1, 1))
  image[16:24] = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
  image[29:33] = zlib.crc32(image[12:29]).to_bytes(4, 'big')
  return bytes(image)


@pytest.mark.parametrize(
  ('contents', 'kind', 'status', 'message'),
  [
    (b'', 'image/png', 400, 'not a readable image'),
    (b'GIF89a but not really', 'image/gif', 400, 'not a readable image'),
    (png(40, 60)[:60], 'image/png', 400, 'cannot decode'),
    (png(40, 60), 'image/tiff', 415, 'image/jpeg'),
    (png(40, 60), 'text/html', 415, 'Content-Type'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'image/svg+xml', 415, ''),
    (png(101, 100), 'image/png', 413, 'pixels'),
    (header_of(60_000, 60_000), 'image/png', 413, 'pixels'),
    (header_of(9_000, 9_500), 'image/png', 413, 'pixels'),
    (header_of(12_000, 10_000), 'image/png', 413, 'pixels'),
    (png(2, 60), 'image/png', 400, 'too narrow'),
    (bytes(60_001), 'image/png', 413, '60000 bytes'),
  ],
)
def test_unreadable_images_are_refused(client, contents, kind, status, message):
  response = send_photo(client, contents, kind)
  assert response.status_code == status
  assert message in response.json()['error']
  assert send_photo(client, png(20, 20)).status_code == 200


def test_a_body_that_does_not_say_its_length_is_limited(client):
  sent = []

  def chunks():
    for _ in range(100):
      sent.append(1)
      yield bytes(10_000)

  response = send_photo(client, chunks())
  assert response.status_code == 413


def test_a_video_is_captioned_as_by_video(client, workdirs, tmp_path):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (9, 3, 4, 3), np.uint8)
  frames = frames.repeat(8, 1).repeat(8, 2)
  path = tmp_path / 'clip.mp4'
  frames_lib.write(path, frames, rate=3)
  response = client.post(
    '/api/caption_video?model=clips',
    content=path.read_bytes(),
    headers={'content-type': 'video/mp4'},
  )
  assert response.status_code == 200, response.text
  captioner = caption_inference.load(
    str(workdirs['clips']), decoding=['beam_size=3']
  )
  (wanted,) = captioner.caption_with_attention([frames_lib.read(path)], [3.0])
  answer = response.json()
  assert [one['text'] for one in answer['captions']] == [
    one.text for one in wanted.captions
  ]
  assert answer['seconds'] == pytest.approx(3, abs=0.1)
  # Nine frames, of whose five parts the middle ones are seen.
  seen = np.array([0, 2, 4, 6, 8]) / 3
  np.testing.assert_allclose(answer['attention']['times'], seen, atol=1e-4)
  words = answer['captions'][0]['words']
  np.testing.assert_allclose(
    answer['attention']['weights'], wanted.attention[: len(words)], atol=1e-5
  )


@pytest.mark.parametrize(
  ('count', 'every', 'places'),
  [(10, 0, [1, 3, 5, 7, 9]), (2, 0, [0, 0, 1, 1, 1]), (7, 2, [0, 2, 4, 6])],
)
def test_words_of_a_video_have_the_weights_of_the_model(
  workdirs, count, every, places
):
  """Weights equal those of the captioner, stepped word by word."""
  captioner = caption_inference.load(workdirs['clips'])
  captioner.config.data.every = every
  clip = np.random.default_rng(2).integers(0, 256, (count, 20, 18, 3), np.uint8)
  (described,) = captioner.caption_with_attention([clip], [4.0])
  assert described.times.tolist() == [place / 4 for place in places]
  (found,) = captioner.caption([clip])
  assert described.captions == found
  shown = sampling.for_evaluation(clip[places], resize=16, crop=16)
  shown = np.pad(shown, [(0, 5 - len(places)), (0, 0), (0, 0), (0, 0)])
  network = captioner.network.bind(jax.device_get(captioner.variables))
  carry, context = network.begin(shown[None], np.int32([len(places)]))
  words = found[0].text.split(' ')
  assert len(described.attention) >= len(words) > 2
  before = vocabulary.BOS_ID
  for word, weights in zip(
    captioner.vocabulary.encode(found[0].text, 7)[: len(words)],
    described.attention,
    strict=False,
  ):
    _, projected = network.decoder.read(np.int32([[before]]), train=False)
    carry, y = network.decoder.advance(carry, projected, context)
    wanted = y['attention'][0, 0, : len(places)]
    np.testing.assert_allclose(weights, wanted, rtol=1e-4)
    assert np.ptp(wanted) > 0.01
    before = word


def video(tmp_path, count):
  path = tmp_path / 'clip.mp4'
  frames_lib.write(path, np.zeros((count, 16, 16, 3), np.uint8))
  return path.read_bytes()


@pytest.mark.parametrize(
  ('change', 'kind', 'status', 'message'),
  [
    (lambda _: b'', 'video/mp4', 400, 'not a readable video'),
    # FFmpeg would read it as a playlist, and open what it names.
    (
      lambda _: b'#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n',
      'video/mp4',
      400,
      'not a readable video',
    ),
    (lambda good: good[:40] + bytes(300), 'video/mp4', 400, 'the video'),
    (
      lambda good: good.replace(b'avc1', b'????').replace(b'mp4v', b'????'),
      *('video/mp4', 400, 'codec of the video is unknown'),
    ),
    (lambda good: good, 'application/x-mpegurl', 415, 'video/mp4'),
    (lambda good: good + bytes(100_000), 'video/mp4', 413, 'bytes'),
  ],
)
def test_unreadable_videos_are_refused(
  client, tmp_path, change, kind, status, message
):
  response = client.post(
    '/api/caption_video?model=clips',
    content=change(video(tmp_path, 4)),
    headers={'content-type': kind},
  )
  assert response.status_code == status, response.text
  error = response.json()['error']
  assert message in error
  assert '/' not in error.replace('video/', '')  # No path of this machine.


def test_a_long_video_is_refused(client, tmp_path):
  response = client.post(
    '/api/caption_video?model=clips',
    content=video(tmp_path, 41),
    headers={'content-type': 'video/mp4'},
  )
  assert response.status_code == 413
  assert 'longer than 40 frames' in response.json()['error']


# SVG files.


def send_svg(client, text, model='vae', kind='image/svg+xml'):
  return client.post(
    f'/api/svg?model={model}', content=text, headers={'content-type': kind}
  )


def drawn(*paths):
  inside = ''.join(f'<path d="{path}"/>' for path in paths)
  return f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'


def test_the_lines_of_a_file_fill_the_drawing_space(client):
  """Its larger side 255 pixels, with straight lines of two points."""
  text = drawn('M10 10 L60 10 L110 10', 'M10 60 L110 35')
  response = send_svg(client, text)
  assert response.status_code == 200, response.text
  assert response.json()['lines'] == [
    [[0, 0], [255, 0]],
    [[0, 127.5], [255, 63.75]],
  ]


@pytest.mark.parametrize(
  ('text', 'model', 'kind', 'status', 'reason'),
  [
    ('<svg', 'vae', 'image/svg+xml', 400, 'this file is not XML'),
    (drawn(), 'vae', 'image/svg+xml', 400, 'no paths, lines or shapes'),
    (drawn(*['M0 0L9 9'] * 10), 'vae', 'image/svg+xml', 400, 'has 10 lines'),
    (
      drawn('M0 0' + ''.join(f'L{i} {i % 2 * 300}' for i in range(401))),
      'vae',
      'image/svg+xml',
      400,
      'points, the maximum is 400',
    ),
    (drawn('M0 0L1e300 9'), 'vae', 'image/svg+xml', 400, 'beyond 1e'),
    (drawn('M0 0L9 9'), 'x', 'image/svg+xml', 404, 'vae, decoder'),
    (drawn('M0 0L9 9'), 'vae', 'text/plain', 415, 'Content-Type must be'),
    (' ' * 30_001, 'vae', 'image/svg+xml', 413, 'more than 30000 bytes'),
  ],
)
def test_files_that_are_no_drawings_are_refused(
  client, text, model, kind, status, reason
):
  response = send_svg(client, text, model, kind)
  assert response.status_code == status
  assert reason in response.json()['error']


# Bad requests.

DECODE = dict(model='vae', z=[[0, 0, 0, 0]], temperature=0.5)
DRAW = request()


@pytest.mark.parametrize(
  ('path', 'message', 'status', 'reason'),
  [
    ('encode', {}, 400, 'model is missing'),
    ('encode', {'model': 'x', 'lines': HEAD}, 404, 'vae, decoder'),
    ('encode', {'model': 7, 'lines': HEAD}, 400, 'must be a string'),
    ('encode', {'model': 'decoder', 'lines': HEAD}, 400, 'decoder alone'),
    ('encode', {'model': 'vae'}, 400, 'lines is missing'),
    ('encode', {'model': 'vae', 'lines': []}, 400, 'no points'),
    ('encode', {'model': 'vae', 'lines': [[[1, 2]]]}, 400, 'only one point'),
    ('encode', {'model': 'vae', 'lines': HEAD, 'x': 1}, 400, 'no such field'),
    ('decode', {**DECODE, 'z': [[0, 0]]}, 400, '4 numbers'),
    ('decode', {**DECODE, 'z': [[0, 0, 0, 1e9]]}, 400, '4 numbers'),
    ('decode', {**DECODE, 'z': [[0, 0, 0, True]]}, 400, '4 numbers'),
    ('decode', {**DECODE, 'z': [[0] * 4] * 13}, 400, '1 to 12'),
    ('decode', {**DECODE, 'z': []}, 400, '1 to 12'),
    ('decode', {**DECODE, 'temperature': 2.1}, 400, 'from 0 to 2'),
    ('decode', {**DECODE, 'temperature': True}, 400, 'from 0 to 2'),
    ('decode', {**DECODE, 'seed': -1}, 400, 'seed must be'),
    ('decode', {**DECODE, 'seed': 2**31}, 400, 'seed must be'),
    ('decode', {**DECODE, 'category': 'cat'}, 400, 'no categories'),
    ('decode', {**DECODE, 'greedy': 1}, 400, 'true or false'),
    (
      'interpolate',
      {'model': 'vae', 'first': HEAD, 'second': BOX, 'steps': 13},
      400,
      'from 2 to 12',
    ),
    (
      'interpolate',
      {'model': 'vae', 'first': HEAD, 'second': BOX, 'share': 1.1},
      400,
      'share must be from 0 to 1',
    ),
    ('sample', {'model': 'vae', 'count': 13}, 400, 'from 1 to 12'),
    ('sample', {'model': 'vae'}, 400, 'count is missing'),
    ('mimic', {'model': 'decoder', 'count': 1}, 400, 'decoder alone'),
    ('mimic', {'model': 'vae', 'count': 1}, 400, 'lines is missing'),
    ('analogy', {'model': 'vae', 'a': HEAD, 'b': HEAD}, 400, 'c is missing'),
    ('draw', {**DRAW, 'lines': 'x'}, 400, 'list of lines'),
    ('draw', {**DRAW, 'lines': [[[1, 2], [3]]]}, 400, 'two numbers'),
    ('draw', {**DRAW, 'lines': [[[1, '2']]]}, 400, 'two numbers'),
    ('draw', {**DRAW, 'lines': [[[1, 1e9]]]}, 400, 'two numbers'),
    ('draw', {**DRAW, 'lines': [[[1, 10**400]]]}, 400, 'two numbers'),
    ('draw', {**DRAW, 'lines': [[]]}, 400, 'line 0 has no points'),
    ('draw', {**DRAW, 'lines': [[[1, 2]]] * 10}, 400, '10 lines'),
    ('draw', {**DRAW, 'lines': [[[1, 2]] * 401]}, 400, '401 points'),
    ('draw', {**DRAW, 'count': 13}, 400, 'from 1 to 12'),
    ('draw', {**DRAW, 'count': 0}, 400, 'from 1 to 12'),
    ('draw', {**DRAW, 'most': 0}, 400, 'most must be'),
    ('draw', {**DRAW, 'pen_down': 'yes'}, 400, 'true or false'),
    ('draw', {**DRAW, 'model': 'photos'}, 404, 'no such model'),
    ('draw', {**DRAW, 'category': 'dog'}, 400, 'category'),
    (
      'draw',
      {**DRAW, 'lines': [[[x, 200 * (x % 2)] for x in range(100)]]},
      400,
      'points, even simplified: this model reads up to 59',
    ),
  ],
)
def test_bad_messages_are_answered_with_the_reason(
  client, path, message, status, reason
):
  if path == 'draw':
    with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
      socket.send_json(message)
      received = socket.receive_json()
      assert received['id'] == 1
      assert reason in received['error']
      socket.send_json(request(2, count=1))  # It goes on as if nothing were.
      received = socket.receive_json()
      assert received['id'] == 2 and 'error' not in received
  else:
    response = post(client, f'/api/{path}', **message)
    assert response.status_code == status
    assert reason in response.json()['error']


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('', 'not JSON'),
    ('{"model": ', 'not JSON'),
    ('[' * 20_000, 'not JSON'),
    ('{"model": NaN}', 'NaN'),
    ('{"model": -Infinity}', 'Infinity'),
    ('[1, 2]', 'JSON object'),
    (b'\xff\xfe\x00', 'not JSON'),
    ('1' * 30_001, '30000 bytes'),
  ],
)
def test_messages_that_are_not_json_are_refused(client, text, reason):
  response = client.post('/api/encode', content=text, headers=JSON)
  assert response.status_code in (400, 413)
  assert reason in response.json()['error']
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    if isinstance(text, bytes):
      socket.send_bytes(text)
    else:
      socket.send_text(text)
    received = socket.receive_json()
    assert received['id'] is None
    assert reason in received['error']


def test_json_of_another_type_is_refused(client):
  """A form of another page could send it without asking."""
  body = json.dumps({'model': 'vae', 'lines': HEAD})
  for kind in ('text/plain', 'application/x-www-form-urlencoded', ''):
    response = client.post(
      '/api/encode', content=body, headers={'content-type': kind}
    )
    assert response.status_code == 415
  kind = 'Application/JSON; charset=utf-8'
  response = client.post(
    '/api/encode', content=body, headers={'content-type': kind}
  )
  assert response.status_code == 200


def test_a_failure_says_nothing_of_the_inside(client, studio, monkeypatch):
  def fail(drawings):
    raise RuntimeError(f'secret of {len(drawings)}')

  sketcher = studio.sketchers['vae'].model.sketcher
  monkeypatch.setattr(sketcher, 'encode', fail)
  response = post(client, '/api/encode', model='vae', lines=HEAD)
  assert response.status_code == 500
  assert 'secret' not in response.text
  assert 'log' in response.json()['error']
  monkeypatch.undo()
  response = post(client, '/api/encode', model='vae', lines=HEAD)
  assert response.status_code == 200


# Files, headers, hosts and origins.


def test_half_a_surrogate_pair_is_an_error_as_others(client):
  text = '{"id": "\\ud800"}'
  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    socket.send_text(text)
    received = socket.receive_json()
    assert received['id'] is None and r'not "\ud800"' in received['error']
    socket.send_json({'id': 2})  # It goes on.
    assert socket.receive_json()['id'] == 2
  response = client.post('/api/encode', content=text, headers=JSON)
  assert response.status_code == 400


def test_a_sender_that_fails_closes_the_socket(client, monkeypatch, caplog):
  async def fail(self, data, mode='text'):
    raise RuntimeError('broken')

  with client.websocket_connect(SOCKET, headers=ORIGIN) as socket:
    monkeypatch.setattr(websockets.WebSocket, 'send_json', fail)
    socket.send_json({'id': 2})
    with pytest.raises(websockets.WebSocketDisconnect) as closed:
      socket.receive_json()
  assert closed.value.code == 1011
  assert 'A WebSocket fails and is closed' in caplog.text


def test_models_are_listed(client):
  assert client.get('/api/models').json() == {
    'ready': True,
    'progress': [],
    'sketchers': [
      {
        'name': 'vae',
        'conditional': True,
        'latent': 4,
        'categories': [],
        'most_points': demo_workdirs.LENGTH,
        'size': 256,
      },
      {
        'name': 'decoder',
        'conditional': False,
        'latent': 0,
        'categories': list(demo_workdirs.CATEGORIES),
        'most_points': demo_workdirs.LENGTH,
        'size': 256,
      },
    ],
    'captioners': [{'name': 'photos', 'attends': True}],
    'video_captioners': [{'name': 'clips'}],
    'watchers': [],
    'limits': {
      'points': 400,
      'lines': 9,
      'count': 12,
      'steps': 12,
      'photo_bytes': 60_000,
      'photo_pixels': 10_000,
      'photo_types': [
        'image/bmp',
        'image/gif',
        'image/jpeg',
        'image/png',
        'image/webp',
      ],
      'video_bytes': 100_000,
      'video_types': [
        'video/mp4',
        'video/quicktime',
        'video/webm',
        'video/x-matroska',
        'video/x-msvideo',
      ],
    },
  }


@pytest.mark.parametrize(
  ('path', 'kind', 'name'),
  [
    ('/', 'text/html; charset=utf-8', 'index.html'),
    ('/page/main.js', 'text/javascript; charset=utf-8', 'main.js'),
    ('/page/style.css', 'text/css; charset=utf-8', 'style.css'),
    ('/page/mark.svg', 'image/svg+xml', 'mark.svg'),
  ],
)
def test_the_files_of_the_page_have_their_types(client, path, kind, name):
  response = client.get(path)
  assert response.status_code == 200
  assert response.headers['content-type'] == kind
  assert response.text == f'this is {name}'


@pytest.mark.parametrize(
  'path',
  [
    '/page',
    '/page/',
    '/page/inner',
    '/page/inner/main.js',
    '/page/notes.txt',
    '/page/../secret.js',
    '/page/%2e%2e/secret.js',
    '/page/..%2fsecret.js',
    '/page/%2e%2e%2fsecret.js',
    '/page/..\\secret.js',
    '/page/main.js%00.css',
    '/page//main.js',
    '/index.html',
    '/docs',
    '/openapi.json',
    '/api',
    '/api/',
  ],
)
def test_nothing_else_is_sent(client, path):
  response = client.get(path)
  assert response.status_code == 404
  assert response.json() == {'error': 'there is nothing at this address'}


def test_every_answer_has_the_headers(client):
  answers = [
    client.get('/'),
    client.get('/api/models'),
    client.get('/page/nothing.js'),
    client.get('/api/encode'),  # 405.
    client.post('/api/encode', content='x', headers=JSON),
    client.get('/', headers={'host': 'evil.example'}),
  ]
  assert [it.status_code for it in answers] == [200, 200, 404, 405, 400, 403]
  for answer in answers:
    for name, value in guard.HEADERS.items():
      if name != 'Cache-Control':
        assert answer.headers.get_list(name) == [value], answer.url
    assert answer.headers['cache-control'] in ('no-store', 'no-cache')
    assert 'access-control-allow-origin' not in answer.headers
  policy = answers[0].headers['content-security-policy']
  assert "default-src 'none'" in policy
  assert 'unsafe' not in policy


@pytest.mark.parametrize(
  ('host', 'known'),
  [
    ('localhost', True),
    ('localhost:8000', True),
    ('LocalHost:1', True),
    ('127.0.0.1:8000', True),
    ('[::1]:8000', True),
    ('evil.example', False),
    ('localhost.evil.example', False),
    ('evil.example:8000', False),
    ('192.168.0.7:8000', False),
    ('', False),
  ],
)
def test_it_is_asked_under_its_names_alone(client, host, known):
  """A page can give this machine's address a name of its own domain."""
  response = client.get('/api/models', headers={'host': host})
  assert response.status_code == (200 if known else 403)
  headers = {'host': host, 'origin': f'http://{host}'}
  if known:
    with client.websocket_connect(SOCKET, headers=headers):
      pass
  else:
    with pytest.raises(websockets.WebSocketDisconnect):
      with client.websocket_connect(SOCKET, headers=headers):
        pass


def test_on_a_network_addresses_and_given_names_will_do(studio, page):
  app = server.create(
    studio, hosts=('studio.example',), addresses=True, page=page
  )
  other = testclient.TestClient(app, 'http://studio.example')
  for host, status in (
    ('studio.example:80', 200),
    ('192.168.0.7:8000', 200),
    ('[fe80::1]:8000', 200),
    ('evil.example', 403),
  ):
    assert other.get('/', headers={'host': host}).status_code == status


@pytest.mark.parametrize(
  'origin',
  [
    'http://evil.example',
    'http://localhost:81',
    'https://localhost',
    'http://localhost.evil.example',
    'null',
    '',
  ],
)
def test_pages_of_other_origins_are_refused(client, origin):
  with pytest.raises(websockets.WebSocketDisconnect):
    with client.websocket_connect(SOCKET, headers={'origin': origin}):
      pass
  response = client.post(
    '/api/encode',
    json={'model': 'vae', 'lines': HEAD},
    headers={'origin': origin},
  )
  assert response.status_code == 403
  assert 'another origin' in response.json()['error']


def test_a_websocket_without_an_origin_is_refused(client):
  with pytest.raises(websockets.WebSocketDisconnect):
    with client.websocket_connect(SOCKET):
      pass


def test_the_own_origin_is_not(client):
  response = client.post(
    '/api/encode', json={'model': 'vae', 'lines': HEAD}, headers=ORIGIN
  )
  assert response.status_code == 200

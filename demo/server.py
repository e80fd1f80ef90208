"""The routes: the page, what it asks over HTTP, and strokes over a WebSocket.

What is sent and answered is JSON but for pictures and videos, which come as
they are. A drawing is a list of lines [[x, y], ...] in pixels of a model's
drawing space, y downwards. An error is {"error": "what is wrong"}.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing
from starlette import websockets

from demo import describing
from demo import drawing
from demo import guard
from demo import messages
from demo import queues
from demo import studio as studio_lib
from sketch_rnn import latent
from sketch_rnn import strokes

PAGE = pathlib.Path(__file__).parent / 'page'
# All that is ever sent of the page, and as what.
_TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
}
_DIGITS = 3  # Of coordinates: a thousandth of a pixel.
_MOST_STEPS = 12
_MOST_SEED = 2**31 - 1


def create(
  studio: studio_lib.Studio,
  *,
  hosts: Collection[str] = guard.LOOPBACK,
  addresses: bool = False,
  limits: messages.Limits | None = None,
  page: pathlib.Path = PAGE,
) -> guard.Guard:
  """The ASGI application.

  Args:
    studio: has the models. It is stopped when the server stops.
    hosts: names under which the server may be asked.
    addresses: whether IP addresses will do as well.
    limits: what one request may ask for.
    page: directory of the page's files.
  """
  handlers = _Handlers(studio, limits or messages.Limits(), page)

  @contextlib.asynccontextmanager
  async def lifespan(_):
    yield
    await asyncio.to_thread(studio.stop)

  post = ['POST']
  app = applications.Starlette(
    routes=[
      routing.Route('/', handlers.index),
      routing.Route('/page/{name}', handlers.file),
      routing.Route('/api/models', handlers.models),
      routing.Route('/api/encode', handlers.encode, methods=post),
      routing.Route('/api/decode', handlers.decode, methods=post),
      routing.Route('/api/interpolate', handlers.interpolate, methods=post),
      routing.Route('/api/analogy', handlers.analogy, methods=post),
      routing.Route('/api/caption', handlers.caption, methods=post),
      routing.Route('/api/caption_video', handlers.caption_video, methods=post),
      routing.WebSocketRoute('/api/draw', handlers.draw),
    ],
    exception_handlers={
      messages.Problem: _tell_problem,
      queues.Busy: _tell_busy,
      exceptions.HTTPException: _tell_http,
      Exception: _tell_failure,
    },
    lifespan=lifespan,
  )
  app.router.redirect_slashes = False
  return guard.Guard(app, hosts=hosts, addresses=addresses)


def _refusal(
  status: int, text: str, headers: Mapping[str, str] | None = None
) -> responses.JSONResponse:
  return responses.JSONResponse({'error': text}, status, headers)


async def _tell_problem(_, problem):
  return _refusal(problem.status, problem.text)


async def _tell_busy(_, busy):
  return _refusal(503, f'busy: {busy}', {'Retry-After': '1'})


async def _tell_http(_, error):
  text = {
    404: 'there is nothing at this address',
    405: 'this address is not asked like this: see the protocol',
  }.get(error.status_code, error.detail)
  return _refusal(error.status_code, text, error.headers)


async def _tell_failure(_, error):
  del error  # It is in the log; what it says is no business of clients.
  return _refusal(500, 'that failed here: the log of the server says why')


class _Handlers:
  """What is done at each address."""

  def __init__(
    self,
    studio: studio_lib.Studio,
    limits: messages.Limits,
    page: pathlib.Path,
  ):
    self._studio = studio
    self._limits = limits
    # A fixed table: no name that a client sends is ever a path.
    self._files = {
      path.name: path
      for path in (sorted(page.iterdir()) if page.is_dir() else ())
      if path.suffix in _TYPES and path.is_file()
    }
    self._uploads = 0
    self._decoding = asyncio.Semaphore(2)

  # The page.

  async def index(self, _: requests.Request) -> responses.Response:
    """GET /."""
    return self._send_file('index.html')

  async def file(self, request: requests.Request) -> responses.Response:
    """GET /page/NAME."""
    return self._send_file(request.path_params['name'])

  def _send_file(self, name: str) -> responses.Response:
    path = self._files.get(name)
    if path is None:
      raise exceptions.HTTPException(404)
    # The type as it is in the table: Starlette would add a charset to any text.
    return responses.Response(
      path.read_bytes(),
      headers={
        'Content-Type': _TYPES[path.suffix],
        'Cache-Control': 'no-cache',
      },
    )

  async def models(self, _: requests.Request) -> responses.Response:
    """GET /api/models."""
    studio, limits = self._studio, self._limits
    return responses.JSONResponse(
      {
        'ready': studio.ready,
        'progress': studio.progress(),
        'sketchers': [
          {
            'name': name,
            'conditional': it.model.model.conditional,
            'latent': it.model.model.latent
            if it.model.model.conditional
            else 0,
            'categories': list(it.model.sketcher.classes),
            'most_points': it.model.length,
            'size': it.model.size,
          }
          for name, it in list(studio.sketchers.items())
        ],
        'captioners': [
          {'name': name, 'attends': it.model.attends}
          for name, it in list(studio.captioners.items())
        ],
        'video_captioners': [
          {'name': name} for name in list(studio.video_captioners)
        ],
        'limits': {
          'points': limits.points,
          'lines': limits.lines,
          'count': limits.count,
          'steps': _MOST_STEPS,
          'photo_bytes': limits.photo_bytes,
          'photo_pixels': limits.photo_pixels,
          'photo_types': list(describing.PHOTOS),
          'video_bytes': limits.video_bytes,
          'video_types': list(describing.VIDEOS),
        },
      }
    )

  # Latent vectors.

  async def encode(self, request: requests.Request) -> responses.Response:
    """POST /api/encode."""
    message = await self._message(request)
    messages.check_fields(message, ('model', 'lines', 'category'))
    model = self._sketcher(message, latent=True)
    mean, sigma = await self._encode(model, message, ('lines',))
    return responses.JSONResponse(
      {'mean': mean[0].tolist(), 'sigma': sigma[0].tolist()}
    )

  async def decode(self, request: requests.Request) -> responses.Response:
    """POST /api/decode."""
    message = await self._message(request)
    messages.check_fields(message, ('model', 'z', *_DRAWN))
    model = self._sketcher(message, latent=True)
    z = messages.vectors(message, 'z', model.model.model.latent, self._limits)
    return await self._drawings(model, message, z)

  async def interpolate(self, request: requests.Request) -> responses.Response:
    """POST /api/interpolate."""
    message = await self._message(request)
    fields = ('first', 'second')
    messages.check_fields(message, ('model', *fields, 'steps', *_DRAWN))
    model = self._sketcher(message, latent=True)
    steps = messages.integer(message, 'steps', 2, _MOST_STEPS)
    mean, _ = await self._encode(model, message, fields)
    return await self._drawings(model, message, latent.path(*mean, steps))

  async def analogy(self, request: requests.Request) -> responses.Response:
    """POST /api/analogy: A - B + C."""
    message = await self._message(request)
    fields = ('a', 'b', 'c')
    messages.check_fields(message, ('model', *fields, *_DRAWN))
    model = self._sketcher(message, latent=True)
    (a, b, c), _ = await self._encode(model, message, fields)
    return await self._drawings(model, message, (a - b + c)[None])

  async def _encode(
    self,
    model: studio_lib.Model,
    message: dict[str, Any],
    fields: Sequence[str],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the drawings in these fields, f32[n, Z] each."""
    drawings = []
    for field in fields:
      lines = messages.lines(message, field, model.model.size, self._limits)
      sketch = messages.to_drawing(lines, model.model.size)
      messages.check_whole(sketch, model.model.length, f'the drawing {field!r}')
      drawings.append(sketch)
    return await model.worker.ask(drawing.Encode(drawings))

  async def _drawings(
    self, model: studio_lib.Model, message: dict[str, Any], z: np.ndarray
  ) -> responses.Response:
    """What f32[n, Z] decode to, each in the middle of the drawing space."""
    drawn = await model.worker.ask(
      drawing.Draw(
        len(z),
        messages.integer(message, 'seed', 0, _MOST_SEED, 0),
        messages.sampling(message),
        z=z,
        label=_label(model, message),
      )
    )
    return responses.JSONResponse(
      {'drawings': [_centred(sketch, model.model.size) for sketch in drawn]}
    )

  # Photographs and videos.

  async def caption(self, request: requests.Request) -> responses.Response:
    """POST /api/caption?model=NAME."""
    model = _find(self._studio.captioners, request.query_params.get('model'))
    _check_type(request, describing.PHOTOS)
    with self._upload():
      contents = await self._body(request, self._limits.photo_bytes)
      async with self._decoding:
        photo = await asyncio.to_thread(
          describing.decode_photo, contents, self._limits
        )
        picture = await asyncio.to_thread(model.model.picture, photo)
    described = await model.worker.ask(picture)
    return responses.JSONResponse(
      {
        'captions': describing.captions_to_json(described.captions),
        'attention': describing.attention_to_json(described),
        'shown': model.model.shown(photo),
      }
    )

  async def caption_video(
    self, request: requests.Request
  ) -> responses.Response:
    """POST /api/caption_video?model=NAME."""
    model = _find(
      self._studio.video_captioners, request.query_params.get('model')
    )
    _check_type(request, describing.VIDEOS)
    with self._upload(), tempfile.TemporaryDirectory() as directory:
      contents = await self._body(request, self._limits.video_bytes)
      path = describing.store_video(contents, directory)
      async with self._decoding:
        clip, seconds = await asyncio.to_thread(
          model.model.read, path, self._limits
        )
    captions = await model.worker.ask(clip)
    return responses.JSONResponse(
      {
        'captions': describing.captions_to_json(captions),
        'seconds': round(seconds, _DIGITS),
        'attention': None,
      }
    )

  # What requests hold.

  async def _message(self, request: requests.Request) -> dict[str, Any]:
    _check_type(request, ('application/json',))
    return messages.parse(await self._body(request, self._limits.message_bytes))

  async def _body(self, request: requests.Request, most: int) -> bytes:
    """All of it, but never more than may be sent."""
    problem = messages.Problem(
      413, f'more than {most} bytes: send something smaller'
    )
    said = request.headers.get('content-length', '0')
    if said.isdecimal() and int(said) > most:
      raise problem
    body = bytearray()
    try:
      async with asyncio.timeout(self._limits.seconds):
        async for chunk in request.stream():
          body += chunk
          if len(body) > most:
            raise problem
    except TimeoutError as error:
      raise messages.Problem(
        408, f'it took more than {self._limits.seconds:g} seconds to arrive'
      ) from error
    return bytes(body)

  @contextlib.contextmanager
  def _upload(self):
    """Only so many bodies are in memory at a time."""
    if self._uploads >= self._limits.uploads:
      raise queues.Busy('other files are being read: try again in a moment')
    self._uploads += 1
    try:
      yield
    finally:
      self._uploads -= 1

  def _sketcher(
    self, message: dict[str, Any], *, latent: bool = False
  ) -> studio_lib.Model:
    name = messages.text(message, 'model')
    model = _find(self._studio.sketchers, name)
    if latent and not model.model.model.conditional:
      raise messages.Problem(
        400, f'{name} is a decoder alone: it has no latent vectors'
      )
    return model

  # Strokes.

  async def draw(self, socket: websockets.WebSocket):
    """WebSocket /api/draw: drawings go on, point by point."""
    await socket.accept()
    await _Conversation(socket, self._studio, self._limits).run()


@dataclasses.dataclass(eq=False)
class _Going:
  """A drawing of a conversation that goes on."""

  request: queues.Request | None = None


class _Conversation:
  """One WebSocket."""

  def __init__(
    self,
    socket: websockets.WebSocket,
    studio: studio_lib.Studio,
    limits: messages.Limits,
  ):
    self._socket = socket
    self._studio = studio
    self._limits = limits
    self._loop = asyncio.get_running_loop()
    self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    # By the client's number, until the client has been told the end.
    self._going: dict[int, _Going] = {}

  async def run(self):
    """Until the client leaves."""
    sender = asyncio.create_task(self._send_all())
    try:
      while True:
        received = await self._socket.receive()
        if received['type'] == 'websocket.disconnect':
          break
        self._hear(received.get('text') or received.get('bytes') or b'')
    finally:
      for going in self._going.values():
        going.request.cancel()
      sender.cancel()
      with contextlib.suppress(asyncio.CancelledError, Exception):
        await sender

  async def _send_all(self):
    while True:
      message = await self._outbox.get()
      await self._socket.send_json(message)
      if 'done' in message or 'error' in message:
        self._going.pop(message['id'], None)

  def _hear(self, text: str | bytes):
    number = None
    try:
      if len(text) > self._limits.message_bytes:
        raise messages.Problem(
          413, f'more than {self._limits.message_bytes} bytes in a message'
        )
      message = messages.parse(text)
      if 'cancel' in message:
        self._cancel(messages.integer(message, 'cancel', 0, _MOST_SEED))
        return
      number = messages.integer(message, 'id', 0, _MOST_SEED)
      if number in self._going:
        number = None  # The other one goes on.
        raise messages.Problem(400, 'this id is in use: count on')
      self._begin(number, message)
    except messages.Problem as problem:
      self._outbox.put_nowait({'id': number, 'error': problem.text})
    except queues.Busy as busy:
      self._outbox.put_nowait(
        {'id': number, 'error': f'busy: {busy}', 'busy': True}
      )

  def _cancel(self, number: int):
    if (going := self._going.pop(number, None)) is not None:
      going.request.cancel()

  def _begin(self, number: int, message: dict[str, Any]):
    messages.check_fields(
      message, ('id', 'model', 'lines', 'count', 'most', 'pen_down', *_DRAWN)
    )
    if len(self._going) >= self._limits.open:
      raise queues.Busy(
        f'{self._limits.open} drawings of yours are under way: cancel some'
      )
    model = _find(self._studio.sketchers, messages.text(message, 'model'))
    size, length = model.model.size, model.model.length
    lines = messages.lines(message, 'lines', size, self._limits)
    pen_down = messages.flag(message, 'pen_down')
    beginning = messages.to_drawing(lines, size, pen_down=pen_down)
    # There must be room for something new.
    messages.check_length(beginning, length - 1)
    job = drawing.Draw(
      messages.integer(message, 'count', 1, self._limits.count, 1),
      messages.integer(message, 'seed', 0, _MOST_SEED, 0),
      messages.sampling(message),
      beginning=beginning,
      most=messages.integer(message, 'most', 1, self._limits.points, length),
      label=_label(model, message),
      stream=True,
    )
    # Exactly where the pen was; from nothing, the middle.
    last = lines[-1][-1] if lines else np.full(2, size / 2)
    ends = [last] * job.count
    first = [[*map(_rounded, last), 0]] if pen_down or not lines else []
    going = _Going()

    def say(told):
      """In this loop."""
      nonlocal first
      # Cancelled: the number may mean another drawing by now.
      if self._going.get(number) is not going:
        return
      if isinstance(told, queues.Done):
        self._outbox.put_nowait({'id': number, 'done': True})
      elif isinstance(told, queues.Failed):
        text = 'that failed here: the log of the server says why'
        self._outbox.put_nowait({'id': number, 'error': text})
      else:
        points = []
        for i, part in enumerate(told):
          ends[i], absolute = _absolute(part, ends[i])
          points.append(first + absolute)
        first = []
        self._outbox.put_nowait({'id': number, 'points': points})

    def tell(told):
      """In the model's thread."""
      with contextlib.suppress(RuntimeError):  # The loop is closed.
        self._loop.call_soon_threadsafe(say, told)

    going.request = model.worker.submit(job, tell)
    self._going[number] = going


# What says how drawings are drawn.
_DRAWN = ('temperature', 'greedy', 'seed', 'category')


def _find(
  table: Mapping[str, studio_lib.Model], name: str | None
) -> studio_lib.Model:
  if name is None:
    raise messages.Problem(400, 'model is missing')
  model = table.get(name)
  if model is None:
    raise messages.Problem(
      404,
      f'there is no such model here, or not yet; there are: '
      f'{", ".join(table) or "none"}',
    )
  return model


def _label(model: studio_lib.Model, message: dict[str, Any]) -> int | None:
  """Of the category; the first where none is named, None without classes."""
  classes = model.model.sketcher.classes
  category = messages.text(message, 'category', None)
  if category is None:
    return 0 if classes else None
  if category not in classes:
    raise messages.Problem(
      400,
      f'category: this model knows {", ".join(classes) or "no categories"}',
    )
  return classes.index(category)


def _check_type(request: requests.Request, known: Collection[str]):
  kind = request.headers.get('content-type', '').partition(';')[0]
  if kind.strip().lower() not in known:
    raise messages.Problem(
      415, f'Content-Type must be one of {", ".join(known)}'
    )


def _rounded(value: float) -> float:
  return round(float(value), _DIGITS)


def _absolute(
  part: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, list[list[float]]]:
  """Offsets f32[N, 3] from a place f64[2]: where it ends, [[x, y, pen]...]."""
  if not len(part):
    return start, []
  places = start + np.cumsum(part[:, :2].astype(np.float64), axis=0)
  return places[-1], [
    [_rounded(x), _rounded(y), int(lifted)]
    for (x, y), lifted in zip(places, part[:, 2], strict=True)
  ]


def _centred(sketch: np.ndarray, size: int) -> list[list[list[float]]]:
  """The lines of f32[N, 3], in the middle of the drawing space."""
  lines = strokes.to_lines(sketch)
  if not lines:
    return []
  points = np.concatenate(lines)
  shift = size / 2 - (points.min(axis=0) + points.max(axis=0)) / 2
  return [
    [[_rounded(x), _rounded(y)] for x, y in line + shift] for line in lines
  ]

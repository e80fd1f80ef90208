"""The routes: the page, what it asks over HTTP, and strokes over a WebSocket.

What is sent and answered is JSON but for pictures and videos, which come as
they are. A drawing is a list of lines [[x, y], ...] in pixels of a model's
drawing space, y downwards. An error is {"error": "what is wrong"}.
"""

import asyncio
import contextlib
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

from demo import captions
from demo import conversation
from demo import guard
from demo import messages
from demo import queues
from demo import sketching
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
_MOST_STEPS = 12


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
            'conditional': it.model.sketcher.model.conditional,
            'latent': it.model.sketcher.model.latent
            if it.model.sketcher.model.conditional
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
          'photo_types': list(captions.PHOTOS),
          'video_bytes': limits.video_bytes,
          'video_types': list(captions.VIDEOS),
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
    messages.check_fields(message, ('model', 'z', *messages.DRAWN))
    model = self._sketcher(message, latent=True)
    z = messages.vectors(
      message, 'z', model.model.sketcher.model.latent, self._limits
    )
    return await self._drawings(model, message, z)

  async def interpolate(self, request: requests.Request) -> responses.Response:
    """POST /api/interpolate."""
    message = await self._message(request)
    fields = ('first', 'second')
    messages.check_fields(message, ('model', *fields, 'steps', *messages.DRAWN))
    model = self._sketcher(message, latent=True)
    steps = messages.integer(message, 'steps', 2, _MOST_STEPS)
    mean, _ = await self._encode(model, message, fields)
    return await self._drawings(model, message, latent.path(*mean, steps))

  async def analogy(self, request: requests.Request) -> responses.Response:
    """POST /api/analogy: A - B + C."""
    message = await self._message(request)
    fields = ('a', 'b', 'c')
    messages.check_fields(message, ('model', *fields, *messages.DRAWN))
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
    return await model.worker.ask(sketching.Encode(drawings))

  async def _drawings(
    self, model: studio_lib.Model, message: dict[str, Any], z: np.ndarray
  ) -> responses.Response:
    """What f32[n, Z] decode to, each in the middle of the drawing space."""
    drawn = await model.worker.ask(
      sketching.Sample(
        len(z),
        messages.integer(message, 'seed', 0, messages.MOST_SEED, 0),
        messages.sampling(message),
        z=z,
        label=messages.label(model.model.sketcher.classes, message),
      )
    )
    return responses.JSONResponse(
      {'drawings': [_centred(sketch, model.model.size) for sketch in drawn]}
    )

  # Photographs and videos.

  async def caption(self, request: requests.Request) -> responses.Response:
    """POST /api/caption?model=NAME."""
    model = messages.find(
      self._studio.captioners, request.query_params.get('model')
    )
    _check_type(request, captions.PHOTOS)
    with self._upload():
      contents = await self._body(request, self._limits.photo_bytes)
      async with self._decoding:
        photo = await asyncio.to_thread(
          captions.decode_photo, contents, self._limits
        )
        image = await asyncio.to_thread(model.model.preprocess, photo)
    described = await model.worker.ask(image)
    return responses.JSONResponse(
      {
        'captions': captions.captions_to_json(described.captions),
        'attention': captions.attention_to_json(described),
        'shown': model.model.shown(photo),
      }
    )

  async def caption_video(
    self, request: requests.Request
  ) -> responses.Response:
    """POST /api/caption_video?model=NAME."""
    model = messages.find(
      self._studio.video_captioners, request.query_params.get('model')
    )
    _check_type(request, captions.VIDEOS)
    with self._upload(), tempfile.TemporaryDirectory() as directory:
      contents = await self._body(request, self._limits.video_bytes)
      path = captions.store_video(contents, directory)
      async with self._decoding:
        clip = await asyncio.to_thread(model.model.read, path, self._limits)
    described = await model.worker.ask(clip)
    return responses.JSONResponse(
      {
        'captions': captions.captions_to_json(described.captions),
        'seconds': messages.rounded(clip.seconds),
        'attention': captions.times_to_json(described),
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
    model = messages.find(self._studio.sketchers, name)
    if latent and not model.model.sketcher.model.conditional:
      raise messages.Problem(
        400, f'{name} is a decoder alone: it has no latent vectors'
      )
    return model

  # Strokes.

  async def draw(self, socket: websockets.WebSocket):
    """WebSocket /api/draw: drawings go on, point by point."""
    await socket.accept()
    await conversation.Conversation(socket, self._studio, self._limits).run()


def _check_type(request: requests.Request, known: Collection[str]):
  kind = request.headers.get('content-type', '').partition(';')[0]
  if kind.strip().lower() not in known:
    raise messages.Problem(
      415, f'Content-Type must be one of {", ".join(known)}'
    )


def _centred(sketch: np.ndarray, size: int) -> list[list[list[float]]]:
  """The lines of f32[N, 3], in the middle of the drawing space."""
  lines = strokes.to_lines(sketch)
  if not lines:
    return []
  points = np.concatenate(lines)
  shift = size / 2 - (points.min(axis=0) + points.max(axis=0)) / 2
  return [
    [[messages.rounded(x), messages.rounded(y)] for x, y in line + shift]
    for line in lines
  ]

"""Answers the frames of a browser's camera over a WebSocket.

A client opens /api/watch and sends {"model": NAME}, for a tracker with a "box",
[x, y, width, height] in pixels of the first frame. Then it sends frames, each
an image file, and waits for the answer to one before it sends the next:
{"classes": [{"class": ..., "probability": ...}, ...]}, the most probable first,
or {"box": [...]}. An {"error": ...} ends the session.
"""

import asyncio
from typing import Any

import numpy as np
from absl import logging
from starlette import websockets

from demo import captions
from demo import messages
from demo import queues
from demo import studio as studio_lib

MAX_SESSIONS = 8
_MAX_SIDE = 10_000.0  # Of a box, in pixels.


async def watch(
  socket: websockets.WebSocket,
  studio: studio_lib.Studio,
  limits: messages.Limits,
):
  """Serves a client until it leaves or makes an error."""
  try:
    await _serve(socket, studio, limits)
  except messages.Problem as problem:
    await socket.send_json({'error': problem.text})
  except queues.Busy as busy:
    await socket.send_json({'error': f'busy: {busy}', 'busy': True})
  except websockets.WebSocketDisconnect:
    return
  except Exception:
    logging.exception('A session fails')
    await socket.send_json(
      {'error': 'the request failed on the server: see its log'}
    )
  await socket.close()


async def _serve(socket, studio, limits):
  message = messages.parse(await _received(socket, limits.message_bytes))
  messages.check_fields(message, ('model', 'box'))
  model = messages.find(studio.watchers, messages.text(message, 'model'))
  box = _box(message)
  session = None
  while True:
    contents = await _received(socket, limits.image_bytes)
    frame = await asyncio.to_thread(captions.decode_image, contents, limits)
    if session is None:
      try:
        session = await asyncio.to_thread(model.model.start, frame, box)
      except ValueError as error:
        raise messages.Problem(400, str(error)) from error
    answer = await model.worker.ask((session, frame))
    if 'error' in answer:
      raise messages.Problem(400, answer['error'])
    await socket.send_json(answer)


async def _received(socket: websockets.WebSocket, max_bytes: int) -> bytes:
  """The next message.

  Raises:
    Problem: it is too large.
    WebSocketDisconnect: the client has left.
  """
  received = await socket.receive()
  if received['type'] == 'websocket.disconnect':
    raise websockets.WebSocketDisconnect(received.get('code', 1000))
  contents = received.get('bytes')
  if contents is None:
    contents = received['text'].encode(errors='backslashreplace')
  if len(contents) > max_bytes:
    raise messages.Problem(413, f'the message has more than {max_bytes} bytes')
  return contents


def _box(message: dict[str, Any]) -> np.ndarray | None:
  value = message.get('box')
  if value is None:
    return None
  if (
    not isinstance(value, list)
    or len(value) != 4
    or any(type(x) not in (int, float) or abs(x) > _MAX_SIDE for x in value)
  ):
    raise messages.Problem(
      400, 'box must be four numbers, [x, y, width, height] in pixels'
    )
  return np.array(value, np.float32)

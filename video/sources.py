"""Reads collections of clips, and checks all before any is used.

  classes            a folder per class, of video files or folders of frames
  ucf101             UCF101 with its official lists (Soomro et al. 2012)
  captioned          MSR-VTT's JSON (Xu et al. 2016), or MSVD's captions (Chen
                     and Dolan 2011) with lists of the splits
  otb                OTB's folders (Wu et al. 2013): img/, groundtruth_rect.txt

People and places that a model is tested on are never those that it is trained
on, where files say who and where: clips of one group are in one split.

Axes: T time, H height, W width, C channels.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np
import tqdm

from video import frames as frames_lib

SPLITS = ('train', 'validation', 'test')
# Names of splits in other people's files.
_NAMES = {
  'train': 'train',
  'training': 'train',
  'val': 'validation',
  'validate': 'validation',
  'validation': 'validation',
  'test': 'test',
  'testing': 'test',
}
_MOST_LISTED = 20
# UCF11, UCF50 and UCF101: clips of one group were cut from one recording.
_GROUP = re.compile(r'_(g\d+)_c\d+$')

# Where OTB annotates a part of the frames: the first and the last of them.
_OTB_PARTS = {
  'david': (300, 770),
  'diving': (1, 215),
  'football1': (1, 74),
  'freeman3': (1, 460),
  'freeman4': (1, 283),
}

# What is wrong -> with what.
Problems = collections.defaultdict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames, with a class or with captions."""

  id: str
  split: str  # 'train', 'validation' or 'test'.
  frames: pathlib.Path | np.ndarray  # For frames.read; or uint8[T, H, W, C].
  label: str = ''
  captions: tuple[str, ...] = ()
  group: str = ''  # Who or what was filmed, where that is known.


@dataclasses.dataclass(frozen=True)
class Track:
  """Frames, and where one thing is in each of them."""

  id: str
  split: str
  pictures: tuple[pathlib.Path, ...]
  boxes: np.ndarray  # f32[T, 4]: x, y of the upper left corner, w, h; pixels.
  hidden: np.ndarray  # bool[T]: the file says that it is not to be seen.


def classes(
  directory: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Clip], str]:
  """A folder per class, of clips: video files, .npy, .npz, folders of frames.

  With folders 'train', 'val' or 'validation', and 'test' above the classes
  these are the splits. Otherwise a tenth each is for validation and for testing
  by the hash of the group: of `..._g07_c01.avi` this is g07, of other names the
  clip itself.

  Returns:
    The good clips, and a text that lists what is wrong with the others.

  Raises:
    ValueError: it lists all that is wrong, if `skip_bad` does not allow it.
  """
  directory = _directory(directory, 'of folders, one a class')
  problems = Problems(list)
  folders = _folders(directory)
  split_folders = [f for f in folders if f.name.lower() in _NAMES]
  candidates = []
  if split_folders:
    for folder in folders:
      if folder not in split_folders:
        problems['beside the folders of the splits'].append(str(folder))
    for folder in split_folders:
      split = _NAMES[folder.name.lower()]
      candidates += _labelled(folder, split, problems)
  else:
    candidates = _labelled(directory, None, problems)
  return _finish(directory, candidates, problems, skip_bad)


def _labelled(directory, split, problems: Problems) -> list[Clip]:
  clips = []
  for folder in _folders(directory):
    found = [path for path in _sorted(folder) if _is_clip(path)]
    if not found:
      problems['class without clips'].append(str(folder))
    for path in found:
      stem = path.name if path.is_dir() else path.stem
      match = _GROUP.search(stem)
      group = match[1] if match else ''
      clips.append(
        Clip(
          id=f'{split}/{folder.name}/{path.name}'
          if split
          else f'{folder.name}/{path.name}',
          split=split or split_of(group or f'{folder.name}/{path.name}'),
          frames=path,
          label=folder.name,
          group=group,
        )
      )
  return clips


def split_of(group: str) -> str:
  """A tenth each for validation and testing, by the hash of a name."""
  digest = hashlib.sha256(group.encode()).digest()
  return {0: 'validation', 1: 'test'}.get(
    int.from_bytes(digest[:8], 'big') % 10, 'train'
  )


def ucf101(
  videos: str | os.PathLike,
  lists: str | os.PathLike,
  *,
  number: int = 1,
  skip_bad: bool = False,
) -> tuple[list[Clip], str]:
  """UCF101's videos (`Class/v_Class_g01_c01.avi`) by an official split.

  The lists know no validation: every ninth of the groups they train on is for
  that, so that it has no recording in common with the rest.

  Args:
    videos: directory of the folders of the classes.
    lists: directory of classInd.txt, trainlist01.txt, testlist01.txt, ...
    number: of the split, 1 to 3.
    skip_bad: leave out what is wrong. Otherwise anything wrong is an error.
  """
  videos = _directory(videos, "of UCF101's classes")
  lists = _directory(lists, 'of trainlist01.txt and the other lists')
  names = {line.split()[1] for line in lines(lists / 'classInd.txt')}
  problems = Problems(list)
  listed = {}
  for split in ('train', 'test'):
    path = lists / f'{split}list{number:02d}.txt'
    for line in lines(path):
      file = line.split()[0]
      match = _GROUP.search(pathlib.PurePosixPath(file).stem)
      label = pathlib.PurePosixPath(file).parent.name
      if match is None or label not in names:
        problems['not Class/v_Class_g01_c01.avi, or no class'].append(
          f'{path.name}: {line}'
        )
      elif file in listed:
        problems['listed twice'].append(f'{path.name}: {file}')
      else:
        listed[file] = split, label, match[1]
  groups = sorted(
    {group for split, _, group in listed.values() if split == 'train'}
  )
  held_out = set(groups[4::9] or groups[-1:])
  candidates = [
    Clip(
      id=pathlib.PurePosixPath(file).stem,
      split='validation' if split == 'train' and group in held_out else split,
      frames=videos / file,
      label=label,
      group=group,
    )
    for file, (split, label, group) in listed.items()
  ]
  return _finish(videos, candidates, problems, skip_bad)


def captioned(
  videos: str | os.PathLike,
  captions: Sequence[str | os.PathLike],
  *,
  splits: str | os.PathLike | None = None,
  skip_bad: bool = False,
) -> tuple[list[Clip], str]:
  """Videos with sentences, all of them: MSR-VTT's twenty, MSVD's forty.

  Args:
    videos: directory of the files, named by their ids: `video0.mp4`.
    captions: files of one of three kinds. MSR-VTT's JSON, with `videos` that
      have `video_id` and `split` and with `sentences` that have `video_id` and
      `caption` (its training and its test file may both be given). A JSON
      object of an id -> a list of captions. MSVD's AllVideoDescriptions.txt,
      lines of an id, a space and a caption.
    splits: for the last two, a directory of train_list.txt, val_list.txt and
      test_list.txt, of an id a line.
    skip_bad: leave out what is wrong. Otherwise anything wrong is an error.
  """
  videos = _directory(videos, 'of the video files')
  problems = Problems(list)
  split_by_id, by_id = {}, collections.defaultdict(list)
  for path in map(pathlib.Path, captions):
    if path.suffix == '.json':
      _read_json(path, split_by_id, by_id, problems)
    else:
      _read_descriptions(path, by_id, problems)
  if splits is not None:
    split_by_id |= _read_split_lists(pathlib.Path(splits), problems)
  elif not split_by_id:
    raise ValueError(
      f'{captions[0]} does not say which video is in which split: pass the '
      'directory of train_list.txt, val_list.txt and test_list.txt as splits'
    )
  problems['captions, but in no split'] += sorted(set(by_id) - set(split_by_id))
  files = {path.stem: path for path in _sorted(videos) if _is_clip(path)}
  candidates = []
  for name, split in split_by_id.items():
    # Line breaks end a caption in the official tools for evaluation.
    sentences = [' '.join(sentence.split()) for sentence in by_id[name]]
    good = tuple(s for s in sentences if re.search(r'\w', s))
    if len(good) < len(sentences):
      problems['caption without a word'].append(name)
    if not good:
      problems['video without captions'].append(name)
    else:
      path = files.get(name, videos / f'{name}.mp4')
      candidates.append(Clip(name, split, path, captions=good))
  return _finish(videos, candidates, problems, skip_bad)


def _read_json(path, split_by_id, by_id, problems: Problems):
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(content, dict):
    raise ValueError(
      f'{path} must hold an object: `videos` and `sentences` as MSR-VTT has '
      'them, or ids with their captions'
    )
  if 'sentences' not in content:
    for name, sentences in content.items():
      if isinstance(sentences, list) and all(
        isinstance(sentence, str) for sentence in sentences
      ):
        by_id[name] += sentences
      else:
        problems['not a list of captions'].append(f'{path.name}: {name}')
    return
  for i, video in enumerate(content.get('videos', ())):
    try:
      name, split = video['video_id'], video['split']
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'{path.name}: videos[{i}]: {error}'
      )
      continue
    if split not in _NAMES:
      problems['unknown split'].append(f'{path.name}: {name}: {split!r}')
    elif name in split_by_id:
      problems['video that was there before'].append(f'{path.name}: {name}')
    else:
      split_by_id[name] = _NAMES[split]
  for i, sentence in enumerate(content['sentences']):
    try:
      by_id[sentence['video_id']].append(str.strip(sentence['caption']))
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'{path.name}: sentences[{i}]: {error}'
      )


def _read_descriptions(path, by_id, problems: Problems):
  for number, line in enumerate(lines(path), start=1):
    if line.startswith('#'):
      continue
    name, space, caption = line.partition(' ')
    if space:
      by_id[name].append(caption)
    else:
      problems['not an id, a space and a caption'].append(
        f'line {number}: {line[:60]!r}'
      )


def _read_split_lists(directory, problems: Problems) -> dict[str, str]:
  split_by_id = {}
  for word, split in (
    ('train', 'train'),
    ('val', 'validation'),
    ('test', 'test'),
  ):
    found = sorted(directory.glob(f'*{word}*.txt'))
    if len(found) != 1:
      raise ValueError(
        f'{directory} must hold one file *{word}*.txt, not {len(found)}'
      )
    for name in lines(found[0]):
      if name in split_by_id:
        problems['in a list that was there before'].append(
          f'{found[0].name}: {name}'
        )
      else:
        split_by_id[name] = split
  return split_by_id


def otb(
  directory: str | os.PathLike, *, split: str = 'test', skip_bad: bool = False
) -> tuple[list[Track], str]:
  """OTB's sequences: folders with img/ and groundtruth_rect.txt.

  Numbers may be separated by commas, tabs or spaces. Where two things are
  followed (groundtruth_rect.1.txt, groundtruth_rect.2.txt) there are two
  tracks. OTB counts pixels from 1; here the first is 0. A box that is empty or
  no number says that the thing is not to be seen.

  Returns:
    The good tracks, and a text that lists what is wrong with the others.
  """
  directory = _directory(directory, "of OTB's sequences")
  if (directory / 'img').is_dir():
    folders = [directory]
  else:
    folders = _folders(directory)
  problems = Problems(list)
  tracks = []
  for folder in folders:
    found = sorted(folder.glob('groundtruth_rect*.txt'))
    if not found or not (folder / 'img').is_dir():
      problems['no img/ or no groundtruth_rect.txt'].append(str(folder))
    for path in found:
      number = path.name.removeprefix('groundtruth_rect').removesuffix('.txt')
      try:
        track = _read_track(path, split)
      except ValueError as error:
        problems['boxes or pictures that do not fit together'].append(
          str(error)
        )
        continue
      tracks.append(
        dataclasses.replace(track, id=folder.name + number.replace('.', '-'))
      )
  errors = _in_threads(_picture_error, tracks)
  problems['picture that cannot be decoded'] += filter(None, errors)
  good = [t for t, e in zip(tracks, errors, strict=True) if e is None]
  return good, _report(directory, len(good), problems, skip_bad)


def _read_track(path: pathlib.Path, split: str) -> Track:
  paths = frames_lib.pictures(path.parent / 'img')
  part = _OTB_PARTS.get(path.parent.name.lower())
  rows = [re.split(r'[,\s]+', line.strip(' ,\t')) for line in lines(path)]
  wrong = [i for i, row in enumerate(rows, start=1) if len(row) != 4]
  try:
    boxes = np.array(rows, np.float32) if not wrong else None
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if boxes is None:
    raise ValueError(
      f'{path}: line {wrong[0]} does not hold four numbers x, y, w, h'
    )
  if part is not None and len(paths) > len(boxes):
    paths = paths[part[0] - 1 : part[1]]
  if len(paths) != len(boxes):
    raise ValueError(f'{path}: {len(boxes)} boxes for {len(paths)} pictures')
  hidden = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
  if hidden[0]:
    raise ValueError(f'{path}: no box in the first frame to begin with')
  boxes[hidden] = 0
  boxes[~hidden, :2] -= 1
  return Track(path.parent.name, split, tuple(paths), boxes, hidden)


def _picture_error(track: Track) -> str | None:
  try:
    sizes = {frames_lib.images.decode(path).shape for path in track.pictures}
  except (ValueError, OSError) as error:
    return str(error)
  if len(sizes) > 1:
    return f'the pictures of {track.id} differ in size: {sorted(sizes)}'
  return None


# What they have in common.


def _directory(path, what: str) -> pathlib.Path:
  path = pathlib.Path(path)
  if not path.is_dir():
    raise ValueError(f'{path} is not a directory: pass that {what}')
  return path


def _sorted(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    (path for path in directory.iterdir() if not path.name.startswith('.')),
    key=frames_lib.natural_order,
  )


def _folders(directory: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in _sorted(directory) if path.is_dir()]


def _is_clip(path: pathlib.Path) -> bool:
  suffix = path.suffix.lower()
  return path.is_dir() or suffix in (*frames_lib.VIDEOS, *frames_lib.ARRAYS)


def lines(path: pathlib.Path) -> list[str]:
  """The lines that are not empty."""
  text = path.read_text(encoding='utf-8-sig')
  return [line.strip() for line in text.split('\n') if line.strip()]


def _finish(
  directory, candidates: Iterable[Clip], problems: Problems, skip_bad: bool
) -> tuple[list[Clip], str]:
  """Decodes every clip once; no group may be in two splits."""
  remaining, seen = [], set()
  for clip in candidates:
    if clip.id in seen:
      problems['clip that was there before'].append(clip.id)
    elif not clip.frames.exists():
      problems['missing file'].append(str(clip.frames))
    else:
      seen.add(clip.id)
      remaining.append(clip)
  errors = _in_threads(_decoding_error, remaining)
  problems['clip that cannot be decoded'] += filter(None, errors)
  clips = [clip for clip, e in zip(remaining, errors, strict=True) if e is None]
  splits = collections.defaultdict(set)
  for clip in clips:
    if clip.group:
      splits[clip.label, clip.group].add(clip.split)
  problems['group in more than one split'] += [
    f'{label}, {group}: {", ".join(sorted(found))}'
    for (label, group), found in splits.items()
    if len(found) > 1
  ]
  clips = [
    clip
    for clip in clips
    if not clip.group or len(splits[clip.label, clip.group]) == 1
  ]
  return clips, _report(directory, len(clips), problems, skip_bad)


def _in_threads(function, items) -> list[str | None]:
  """What is wrong with each; FFmpeg and Pillow decode outside Python's lock."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return list(
      tqdm.tqdm(
        pool.map(function, items),
        total=len(items),
        desc='Decoding',
        unit=' clips',
      )
    )


def _decoding_error(clip: Clip) -> str | None:
  try:
    if clip.frames.suffix.lower() in frames_lib.VIDEOS:
      for _ in frames_lib.stream(clip.frames):
        pass
    else:
      frames_lib.read(clip.frames)
  except (ValueError, OSError) as error:
    return str(error)
  return None


def _report(directory, count: int, problems: Problems, skip_bad: bool) -> str:
  """What is wrong, as a text; an error, unless it may be left out."""
  lines = []
  for problem, items in problems.items():
    if items:
      lines.append(f'{problem} ({len(items)}):')
      lines += [f'  {item}' for item in items[:_MOST_LISTED]]
    if len(items) > _MOST_LISTED:
      lines.append(f'  and {len(items) - _MOST_LISTED} more')
  report = '\n'.join(lines)
  if report and not skip_bad:
    raise ValueError(
      f'{directory}: correct what is wrong, or leave it out with skip_bad '
      f'(--skip_bad).\n{report}'
    )
  if not count:
    raise ValueError(f'{directory}: nothing is left.\n{report}')
  return report

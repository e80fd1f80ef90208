// The page: its rooms and their models.

import {connection} from './api.js';
import {lose} from './api.js';
import {models} from './api.js';
import * as captionRoom from './caption_room.js';
import * as drawRoom from './draw_room.js';
import {forgive} from './notices.js';
import {settle} from './notices.js';
import {warn} from './notices.js';
import {showProgress} from './preparing.js';
import {tabs} from './tabs.js';
import * as watchRoom from './watch_room.js';

const WAIT = 1000;  // Milliseconds between requests while models are prepared.
const LONGEST = 16_000;  // Maximum while the server is lost.
const SAFE = 'What you have made here is safe, and the page goes on by itself.';
const ROOMS = ['draw', 'caption', 'watch'];

const enter = tabs(document.querySelector('[role=tablist]'), (room) => {
  forgive();
  if (room !== 'caption') captionRoom.leave();
  if (room !== 'watch') watchRoom.leave();
  history.replaceState(null, '', `#/${room}`);
});
const asked = () => ROOMS.find((room) => location.hash === `#/${room}`);
addEventListener('hashchange', () => enter(asked() ?? ROOMS[0]));

let offered = '';
let wait = WAIT;
let soon = 0;  // Timer of the next request, when the server is lost.
let lost = false;

connection.addEventListener('lost', () => {
  if (soon) return;
  lost = true;
  warn(`The server does not answer. ${SAFE}`);
  soon = setTimeout(look, wait);
  wait = Math.min(2 * wait, LONGEST);
});

function found() {
  wait = WAIT;
  settle();
}

async function look() {
  soon = 0;
  let answer;
  try {
    answer = await models();
  } catch {
    lose();
    return;
  }
  const {ready, sketchers, captioners, video_captioners: films, watchers} =
    answer;
  const any = {
    draw: sketchers.length > 0,
    caption: captioners.length + films.length > 0,
    watch: captioners.length + watchers.length > 0,
  };
  showProgress(answer);
  // A server that has just started still prepares some models.
  if (lost && offered && !ready) {
    warn(`The server is back, and loads its models. ${SAFE}`);
    setTimeout(look, WAIT);
    return;
  }
  if (!offered) enter(asked() ?? ROOMS.find((room) => any[room]) ?? ROOMS[0]);
  for (const room of ROOMS)
    document.querySelector(`#${room} > .missing`).hidden = any[room] || !ready;
  const those = JSON.stringify([sketchers, captioners, films, watchers]);
  if (those !== offered) {
    offered = those;
    drawRoom.offer(sketchers, answer.limits, found);
    captionRoom.offer(captioners, films, answer.limits);
    watchRoom.offer(watchers, captioners);
  }
  if (lost) {
    lost = false;
    if (any.draw) drawRoom.resume();
    else found();
    captionRoom.resume();
  }
  if (!ready) setTimeout(look, WAIT);
}

look();

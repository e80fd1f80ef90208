// The page: its rooms, and the models that are in them.

import {models} from './api.js';
import * as captionRoom from './caption_room.js';
import * as drawRoom from './draw_room.js';
import {complain} from './notices.js';
import {forgive} from './notices.js';
import {showProgress} from './preparing.js';
import {tabs} from './tabs.js';

const WAIT = 1000;  // Milliseconds between looks at models in training.
const ROOMS = ['draw', 'caption'];

const enter = tabs(document.querySelector('[role=tablist]'), (room) => {
  forgive();
  if (room !== 'caption') captionRoom.leave();
  history.replaceState(null, '', `#/${room}`);
});
const asked = () => ROOMS.find((room) => location.hash === `#/${room}`);
addEventListener('hashchange', () => enter(asked() ?? ROOMS[0]));

let offered = '';

async function look(first) {
  let found;
  try {
    found = await models();
  } catch (error) {
    complain(error);
    setTimeout(look, WAIT, first);
    return;
  }
  const {ready, sketchers, captioners, video_captioners: films} = found;
  const any = {
    draw: sketchers.length > 0,
    caption: captioners.length + films.length > 0,
  };
  if (first) enter(asked() ?? ROOMS.find((room) => any[room]) ?? ROOMS[0]);
  showProgress(found);
  for (const room of ROOMS)
    document.querySelector(`#${room} > .missing`).hidden = any[room] || !ready;
  const those = JSON.stringify([sketchers, captioners, films]);
  if (those !== offered) {
    offered = those;
    drawRoom.offer(sketchers, found.limits);
    captionRoom.offer(captioners, films, found.limits);
  }
  if (!ready) setTimeout(look, WAIT, false);
}

look(true);

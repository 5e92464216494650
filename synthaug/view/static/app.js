import { Niivue, NVImage } from "./niivue.js";

const $ = (id) => document.getElementById(id);
const VIEWS = ["slices", "axial", "coronal", "sagittal", "volume", "all"];
const state = { cases: [], decisions: {}, number: 0, case: null, channel: null, lesion: -1, view: 0, label: true, loading: 0, over: null, listed: null };
const options = {
  backColor: [0.03, 0.05, 0.07, 1], isColorbar: false, show3Dcrosshair: true, crosshairWidth: 0.6, crosshairGap: 12, isOrientCube: false,
  dragAndDropEnabled: false, isNearestInterpolation: false, logLevel: "error", multiplanarShowRender: 0, // a volume rendering by software takes seconds a draw: only where it is asked for
};
const after = new Niivue(options);
let before = null, attached = null;

const getJson = async (address, request) => {
  const reply = await fetch(address, request);
  if (!reply.ok) throw new Error(await reply.text());
  return reply.json();
};

const say = (words) => { $("message").textContent = words; };

const colormap = (classes) => {
  const values = [0, ...classes.map((c) => c.value)];
  const part = (k) => [0, ...classes.map((c) => parseInt(c.colour.slice(1 + 2 * k, 3 + 2 * k), 16))];
  return { R: part(0), G: part(1), B: part(2), A: values.map((v) => (v ? 255 : 0)), I: values, labels: ["", ...classes.map((c) => c.name)] };
};

const view = (nv) => {
  const slices = nv.sliceTypeMultiplanar;
  const types = [slices, nv.sliceTypeAxial, nv.sliceTypeCoronal, nv.sliceTypeSagittal, nv.sliceTypeRender, slices];
  nv.opts.multiplanarShowRender = Number(VIEWS[state.view] === "all");
  nv.setSliceType(types[state.view]);
};

const pressed = (parent, chosen) => [...parent.children].forEach((b, k) => b.setAttribute("aria-pressed", k === chosen));

const buttons = (parent, names, act) => {
  parent.replaceChildren(...names.map((name, k) => {
    const button = document.createElement("button");
    button.textContent = name;
    button.addEventListener("click", () => act(k));
    return button;
  }));
};

async function show(number) {
  state.number = (number + state.cases.length) % state.cases.length;
  state.lesion = -1;
  say("loading");
  document.body.dataset.ready = document.body.dataset.complete = "";
  const asked = state.number;
  const listing = getJson(`lesions/${asked}`); // of a label that is read meanwhile
  listing.catch(() => {}); // said where it is waited for
  const found = await getJson(`case/${asked}`);
  if (asked !== state.number) return; // another one was asked for meanwhile
  state.case = { ...found, lesions: [] };
  $("name").textContent = found.name;
  $("place").textContent = `${asked + 1} of ${state.cases.length}`;
  const names = found.channels.map((c) => c.name);
  state.channel = names.includes(state.channel) ? state.channel : names[0];
  buttons($("channels"), names, (k) => choose(names[k]));
  $("classes").replaceChildren();
  $("lesions").textContent = "reading the label";
  tellDecision();
  state.listed = listing.then((list) => {
    if (asked !== state.number) return;
    Object.assign(state.case, list);
    tellLesions();
  });
  await load(() => jump(Math.max(0, state.case.lesions.findIndex((l) => l.new === true))));
}

function tellLesions() {
  const { classes, lesions } = state.case;
  $("classes").replaceChildren(...classes.map((c) => {
    const item = document.createElement("span"), spot = document.createElement("i");
    spot.style.background = c.colour;
    item.append(spot, c.name);
    return item;
  }));
  buttons($("lesions"), lesions.map(() => ""), jump);
  lesions.forEach((lesion, k) => {
    const words = document.createElement("small");
    const shares = Object.entries(lesion.classes).map(([n, s]) => `${n} ${Math.round(100 * s)} %`).join(", ");
    words.textContent = shares;
    const mark = lesion.new === true ? " · inserted" : lesion.new === false ? " · the host's own" : "";
    $("lesions").children[k].append(`${k + 1}: ${lesion.ml} ml, ${lesion.diameter_mm} mm${mark}`, words);
  });
  if (!lesions.length) $("lesions").textContent = "none";
}

// Waits until what was drawn is rendered, which reading a pixel does, and lets the browser show it before there is more to do.
async function drawn(nv) {
  nv.gl.bindFramebuffer(nv.gl.FRAMEBUFFER, null);
  nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4));
  await new Promise((then) => { setTimeout(then, 30); });
}

// NiiVue's own loading draws every layer anew for each file that comes: here each is drawn once, the image first.
function setImage(nv, image) {
  nv.volumes = [image];
  nv.setVolume(image, 0);
  view(nv);
}

function setOver(label) {
  label.setColormapLabel(colormap(state.case.classes));
  after.volumes = [after.volumes[0], label];
  after.overlays = [label];
  paint();
}

async function load(then) {
  const asked = ++state.loading, found = state.case, channel = found.channels.find((c) => c.name === state.channel);
  const old = found.before?.find((c) => c.name === channel.name);
  $("slider").hidden = !old; // before the first draw: a canvas that changes its size waits for all that was drawn
  const label = state.over?.of === found.label ? state.over.label : null;
  const reading = [NVImage.loadFromUrl({ url: channel.file, colormap: "gray" }), found.label && !label ? readLabel(found.label) : label];
  attached ??= after.attachToCanvas($("after")); // compiles shaders, while files come and are decompressed
  const [image, over] = await Promise.all([...reading, attached, state.listed]);
  if (asked !== state.loading) return; // another one was asked for meanwhile
  $("curtain").hidden = $("edge").hidden = true;
  setImage(after, image);
  pressed($("channels"), found.channels.indexOf(channel));
  then();
  await drawn(after);
  if (asked !== state.loading) return;
  performance.mark(`slices ${found.name}`);
  if (over) setOver(over);
  state.over = { of: found.label, label: over };
  say("");
  await drawn(after);
  if (asked !== state.loading) return;
  document.body.dataset.ready = found.name;
  performance.mark(`ready ${found.name}`);
  if (old) await loadBefore(old, image, asked);
  if (asked === state.loading) document.body.dataset.complete = found.name;
}

const readLabel = (url) => NVImage.loadFromUrl({ url, colormap: "red", opacity: opacity() });

async function loadBefore(old, shown, asked) {
  if (!before) {
    before = new Niivue(options);
    await before.attachToCanvas($("before"));
  }
  const image = await NVImage.loadFromUrl({ url: old.file, colormap: "gray", cal_min: shown.cal_min, cal_max: shown.cal_max });
  if (asked !== state.loading) return;
  setImage(before, image);
  after.broadcastTo([before], { "2d": true, "3d": true });
  $("curtain").hidden = $("edge").hidden = false;
  move(after.scene.crosshairPos);
}

const opacity = () => (state.label ? Number($("opacity").value) : 0);

function paint() {
  const label = after.volumes[1];
  if (!label) return;
  label.opacity = opacity();
  after.refreshLayers(label, 1);
  after.drawScene();
}

async function choose(name) {
  state.channel = name;
  const kept = after.scene.crosshairPos.slice();
  await load(() => move(kept));
}

function move(place) {
  after.scene.crosshairPos = place;
  after.drawScene();
  if (before?.volumes.length) { before.scene.crosshairPos = place.slice(); before.drawScene(); }
}

function jump(number) {
  const lesions = state.case.lesions;
  if (!lesions.length) return;
  state.lesion = (number + lesions.length) % lesions.length;
  move(after.mm2frac(lesions[state.lesion].mm));
  pressed($("lesions"), state.lesion);
  document.body.dataset.lesion = state.lesion;
}

function tellDecision() {
  const made = state.decisions[state.case.name];
  $("accept").setAttribute("aria-pressed", made === "accept");
  $("reject").setAttribute("aria-pressed", made === "reject");
  const count = (word) => Object.values(state.decisions).filter((d) => d === word).length;
  $("decision").textContent = `${count("accept")} accepted, ${count("reject")} rejected, in ${state.file}`;
}

async function decide(decision) {
  const body = JSON.stringify({ case: state.case.name, decision });
  state.decisions = await getJson("decision", { method: "POST", body });
  tellDecision();
  if (decision !== "none" && state.cases.length > 1) await show(state.number + 1);
}

const turn = (k) => { state.view = k % VIEWS.length; view(after); if (before?.volumes.length) view(before); pressed($("views"), state.view); };

const step = () => { const all = state.case.channels, k = all.findIndex((c) => c.name === state.channel); choose(all[(k + 1) % all.length].name); };

const split = (value) => { $("split").value = value; $("edge").style.left = `${value}%`; $("curtain").style.clipPath = `inset(0 ${100 - value}% 0 0)`; };

const KEYS = {
  n: () => show(state.number + 1), p: () => show(state.number - 1), a: () => decide("accept"), r: () => decide("reject"),
  u: () => decide("none"), j: () => jump(state.lesion + 1), k: () => jump(state.lesion - 1), c: step,
  l: () => { state.label = !state.label; paint(); }, b: () => split(Number($("split").value) > 50 ? 0 : 100), v: () => turn(state.view + 1),
};

const guarded = (act) => async () => { try { await act(); } catch (error) { say(String(error.message ?? error)); } };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "range") return;
  if (KEYS[event.key]) { event.preventDefault(); event.stopPropagation(); guarded(KEYS[event.key])(); }
}, true);

for (const [id, key] of Object.entries({ previous: "p", next: "n", accept: "a", reject: "r", undo: "u" })) {
  $(id).addEventListener("click", guarded(KEYS[key]));
}
$("opacity").addEventListener("input", () => { state.label = true; paint(); });
$("split").addEventListener("input", () => split(Number($("split").value)));
buttons($("views"), VIEWS, turn);
pressed($("views"), 0);

guarded(async () => {
  const known = await getJson("cases.json");
  Object.assign(state, { cases: known.cases, decisions: known.decisions, file: known.file });
  $("root").textContent = known.root;
  split(50);
  await show(0);
})();

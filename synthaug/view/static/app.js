import { Niivue } from "./niivue.js";

const $ = (id) => document.getElementById(id);
const VIEWS = ["all", "axial", "coronal", "sagittal", "volume"];
const state = { cases: [], decisions: {}, number: 0, case: null, channel: null, lesion: -1, view: 0, label: true };
const options = {
  backColor: [0.03, 0.05, 0.07, 1], isColorbar: false, show3Dcrosshair: true, crosshairWidth: 0.6, crosshairGap: 12, isOrientCube: false,
  dragAndDropEnabled: false, isNearestInterpolation: false, logLevel: "error", multiplanarShowRender: 1,
};
const after = new Niivue(options);
let before = null;

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
  const types = [nv.sliceTypeMultiplanar, nv.sliceTypeAxial, nv.sliceTypeCoronal, nv.sliceTypeSagittal, nv.sliceTypeRender];
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
  document.body.dataset.ready = "";
  const asked = state.number;
  const found = await getJson(`case/${asked}`);
  if (asked !== state.number) return; // another one was asked for meanwhile
  state.case = found;
  $("name").textContent = found.name;
  $("place").textContent = `${asked + 1} of ${state.cases.length}`;
  const names = found.channels.map((c) => c.name);
  state.channel = names.includes(state.channel) ? state.channel : names[0];
  buttons($("channels"), names, (k) => choose(names[k]));
  $("classes").replaceChildren(...found.classes.map((c) => {
    const item = document.createElement("span"), spot = document.createElement("i");
    spot.style.background = c.colour;
    item.append(spot, c.name);
    return item;
  }));
  buttons($("lesions"), found.lesions.map(() => ""), jump);
  found.lesions.forEach((lesion, k) => {
    const words = document.createElement("small");
    const shares = Object.entries(lesion.classes).map(([n, s]) => `${n} ${Math.round(100 * s)} %`).join(", ");
    words.textContent = shares;
    const mark = lesion.new === true ? " · inserted" : lesion.new === false ? " · the host's own" : "";
    $("lesions").children[k].append(`${k + 1}: ${lesion.ml} ml, ${lesion.diameter_mm} mm${mark}`, words);
  });
  if (!found.lesions.length) $("lesions").textContent = "none";
  tellDecision();
  const first = Math.max(0, found.lesions.findIndex((l) => l.new === true));
  await load(() => jump(first));
}

async function load(then) {
  const found = state.case, channel = found.channels.find((c) => c.name === state.channel);
  const volume = (c, range) => ({ url: c.file, colormap: "gray", ...(range && { cal_min: range[0], cal_max: range[1] }) });
  const volumes = [volume(channel)];
  if (found.label) volumes.push({ url: found.label, colormap: "red", opacity: opacity() });
  await after.loadVolumes(volumes);
  if (found.label) after.volumes[1].setColormapLabel(colormap(found.classes));
  after.updateGLVolume();
  view(after);
  pressed($("channels"), found.channels.indexOf(channel));
  then();
  document.body.dataset.ready = found.name;
  say("");
  await loadBefore(volume, channel.name);
}

async function loadBefore(volume, name) {
  const old = state.case.before?.find((c) => c.name === name);
  $("curtain").hidden = $("edge").hidden = $("slider").hidden = !old;
  if (old) {
    if (!before) {
      before = new Niivue(options);
      await before.attachToCanvas($("before"));
    }
    await before.loadVolumes([volume(old, [after.volumes[0].cal_min, after.volumes[0].cal_max])]);
    view(before);
    after.broadcastTo([before], { "2d": true, "3d": true });
    move(after.scene.crosshairPos);
  }
}

const opacity = () => (state.label ? Number($("opacity").value) : 0);

function paint() {
  if (after.volumes.length > 1) after.setOpacity(1, opacity());
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
  await after.attachToCanvas($("after"));
  split(50);
  await show(0);
})();

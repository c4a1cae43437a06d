// Puts the parts together. What is shown is in the address behind `#`, so that a link or a reload
// comes back to it. Each process that is looked at is an entry of the browser's history.

(() => {
  const recording = Data.recording();
  const state = { process: recording.open, order: "tree", view: "sites", by: "peak", up: false, find: "", open: new Set() };

  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    const one = (name, allowed, fallback) => (allowed.includes(given.get(name)) ? given.get(name) : fallback);
    const process = Number.parseInt(given.get("process") ?? "", 10);
    state.process = recording.processes[process] ? process : recording.open;
    state.order = one("order", ["tree", "largest"], state.order);
    state.view = one("view", ["sites", "stacks"], "sites");
    state.by = one("by", Sites.COLUMNS.map(({ key }) => key), "peak");
    state.up = given.get("up") === "1";
    state.find = given.get("find") ?? "";
    state.open = new Set((given.get("open") ?? "").split(",").filter(Boolean));
  }

  function toAddress(anew = false) {
    const out = new URLSearchParams();
    if (state.process !== recording.open) out.set("process", state.process);
    if (state.order !== "tree") out.set("order", state.order);
    if (state.view !== "sites") out.set("view", state.view);
    if (state.by !== "peak") out.set("by", state.by);
    if (state.up) out.set("up", "1");
    if (state.find) out.set("find", state.find);
    if (state.open.size > 0) out.set("open", [...state.open].join(","));
    if (anew) history.pushState(null, "", `#${out}`);
    else history.replaceState(null, "", `#${out}`);
  }

  function show() {
    const image = recording.processes[state.process];
    if (!image) return;
    const data = Data.process(state.process);
    const picker = byId("processes");
    keepingFocus(picker, () => Panels.processes(picker, recording, state.process, state, choose));
    Panels.process(byId("process"), image, recording);
    Panels.numbers(byId("numbers"), image, data);
    Timeline.render(byId("timeline"), image, data.timeline);
    Sites.render(byId("sites"), image, data, state, () => toAddress());
    Panels.variables(byId("variables"), data);
    Panels.lifetimes(byId("lifetimes"), image, data);
    Panels.threads(byId("threads"), image, data);
    Panels.modules(byId("modules"), data);
    Panels.notes(byId("notes"));
  }

  function choose(change) {
    const other = change.process !== undefined && change.process !== state.process;
    Object.assign(state, change);
    toAddress(other);
    show();
  }

  byId("generator").textContent = recording.generator;
  Panels.recording(byId("recording"), recording);
  Panels.unrecorded(byId("unrecorded"), recording);
  addEventListener("hashchange", () => {
    fromAddress();
    show();
  });
  fromAddress();
  show();
})();

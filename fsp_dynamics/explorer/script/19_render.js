/* What connects an explorer to its page and its model, and the interface that anywidget calls. */

/** Parameters set in Python move the controls and ask for a frame; what comes back from a request of ours does not. */
function traitChanged(explorer) {
    const now = explorer.model.get("parameters");
    const before = explorer.trait;
    explorer.trait = { ...now };
    const open = explorer.requests.open !== null;
    const ours = open ? [explorer.latest, explorer.before, explorer.frame?.readouts.parameters] : [];
    const echo = (name, value) => ours.some((values) => values && same(values[name], value));
    const set = Object.entries(now).filter(([name, value]) => !same(before[name], value) && !echo(name, value));
    const moved = set.filter(([name, value]) => name in explorer.parameters && !same(explorer.parameters[name], value));
    if (moved.length === 0) {
        return;
    }
    explorer.adopt(Object.fromEntries(moved));
    if (moved.some(([name]) => name !== explorer.sweep.spec?.name)) {
        explorer.sweep.restart();
    }
    const time = performance.now();
    // A frame that another view asked for may be about to bring just these values.
    clearTimeout(explorer.traitTimer);
    explorer.traitTimer = setTimeout(() => {
        const shown = explorer.frame?.readouts.parameters ?? {};
        if (moved.some(([name]) => !same(shown[name], explorer.parameters[name]))) {
            explorer.requests.frame(time);
        }
    }, 20);
}

/** All controls back to their defaults. */
function resetAll(explorer, time) {
    const defaults = [...explorer.panel.controls.values()].map(({ spec }) => [spec.name, spec.default ?? null]);
    explorer.adopt(Object.fromEntries(defaults));
    explorer.sweep.restart();
    explorer.requests.frame(time);
    explorer.drawSweep();
}

/** What each button of the top row does. */
function actions(explorer) {
    return {
        play: () => explorer.play(),
        reset: (event) => resetAll(explorer, event.timeStamp),
        learn: () => explorer.requests.act("learn"),
        forget: () => explorer.requests.act("forget"),
        next: () => explorer.requests.act("next"),
        netcdf: () => explorer.requests.act("netcdf"),
        png: () => explorer.savePicture(),
        code: async () => {
            if (explorer.frame !== null) {
                const done = await copyText(explorer.frame.readouts.code, explorer.page.root);
                explorer.notice(done ? "Code copied." : "The browser does not allow copying.");
            }
        },
    };
}

/** Redraws when the cards' sizes or the pixels of the device change. */
function watchSize(explorer) {
    const { signal } = explorer;
    const sizes = new ResizeObserver(() => explorer.fit());
    const pads = [...explorer.panel.controls.values()].filter(({ fit }) => fit).map(({ canvas }) => canvas);
    [...explorer.cards, ...explorer.sweepCards].map(({ holder }) => holder).concat(pads).forEach((element) => sizes.observe(element));
    signal.addEventListener("abort", () => sizes.disconnect());
    const watchRatio = () => {
        const query = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
        query.addEventListener("change", () => {
            explorer.fit();
            watchRatio();
        }, { signal, once: true });
    };
    watchRatio();
}

/** Connects model, buttons, time cursor, drawer, theme and size. */
function connect(explorer) {
    const { model, signal, page } = explorer;
    const onTrait = () => traitChanged(explorer);
    const onMessage = (content, buffers) => explorer.receive(content, buffers);
    model.on("change:parameters", onTrait);
    model.on("msg:custom", onMessage);
    signal.addEventListener("abort", () => {
        model.off("change:parameters", onTrait);
        model.off("msg:custom", onMessage);
    });
    const does = actions(explorer);
    for (const element of [page.move.play, ...page.buttons]) {
        element.addEventListener("click", (event) => does[element.dataset.action](event), { signal });
    }
    page.move.time.addEventListener("input", () => {
        explorer.play(false);
        explorer.seek(Number(page.move.time.value));
    }, { signal });
    page.sweep.element.addEventListener("toggle", () => {
        explorer.sweep.opened = page.sweep.element.open;
        explorer.fit();
        explorer.drawSweep();
        explorer.requests.pump();
    }, { signal });
    watchTheme(() => explorer.fit(), signal);
    watchSize(explorer);
}

/** Shows the widget `model` in `el`; returns what takes it away again. Several views of one widget are independent. */
function render({ model, el }) {
    const explorer = new Explorer(model, el);
    return () => explorer.close();
}

export default { render };

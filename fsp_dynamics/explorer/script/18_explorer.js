/* The explorer: controls, requests and views of one shown widget, and the interface that anywidget calls. */

const VIEWS = [ringView, rasterView, outputView, settlingView, planeView, spectrumView, updatesView, alignmentView];
const PLAY_SECONDS = 6; // for the whole trajectory

/** Whether a sweep over this control is meaningful: not for those of the view, nor where Python has `sweep: false`. */
function swept(spec) {
    return spec.group !== "view" && spec.sweep !== false;
}

class Explorer {
    constructor(model, el) {
        this.model = model;
        this.el = el;
        this.about = model.get("about");
        this.aborter = new AbortController();
        this.signal = this.aborter.signal;
        this.trait = { ...model.get("parameters") };
        this.frame = null;
        this.theme = null; // until the page is in the document
        this.at = 0;
        this.place = { nudged: false, share: 1 }; // of the cursor within its phase
        this.playing = false;
        this.sweep = new Sweep();
        this.requests = new Requests((content) => this.sent(content), () => this.parameters, () => this.sweep.next());
        const specs = model.get("controls");
        const prefix = `fsp-${Math.random().toString(36).slice(2, 10)}`;
        this.panel = controlPanel(specs, prefix, this.signal, (name, value, time) => this.changed(name, value, time));
        this.parameters = Object.fromEntries(specs.map(({ name, default: value }) => [name, value ?? null]));
        this.adopt(this.trait);
        const page = { signal: this.signal, seek: (time) => this.seekTime(time), scene: () => this.scene() };
        this.cards = VIEWS.map((view) => new Card(view, page));
        this.sweepCards = sweepViews.map((view) => new Card(view, page));
        this.viewing = new Viewing(this.cards, this.signal, () => this.fit());
        this.page = pageOf(this.about, this.panel, this.cards, this.sweepCards, this.viewing.menu);
        this.viewing.grid = this.page.views;
        el.append(this.page.root);
        this.sweep.choose(this.firstSwept());
        connect(this);
        this.fit();
        this.requests.frame(performance.now());
    }

    /** The slider swept before any has been moved: beta, else the first of the dynamics, else the first. */
    firstSwept() {
        const numbers = [...this.panel.controls.values()].map(({ spec }) => spec).filter((spec) => spec.kind === "number" && swept(spec));
        return numbers.find(({ name }) => name === "beta") ?? numbers.find(({ group }) => group === "dynamics") ?? numbers[0] ?? null;
    }

    /** Moves controls to `values` without asking for anything. */
    adopt(values) {
        for (const [name, value] of Object.entries(values)) {
            if (name in this.parameters && !same(this.parameters[name], value)) {
                this.parameters[name] = value;
                this.panel.controls.get(name).show(value);
            }
        }
    }

    /** The user moved a control. */
    changed(name, value, time) {
        this.parameters[name] = value;
        const { spec } = this.panel.controls.get(name);
        if (spec.kind === "number" && swept(spec)) {
            if (this.sweep.spec?.name !== name) {
                this.sweep.choose(spec);
            }
        } else if (spec.group !== "view") {
            this.sweep.restart();
        }
        this.quiet();
        this.requests.frame(time);
        this.drawSweep();
    }

    /** Keeps screen readers from reading every value of a drag: the status line is busy until half a second after the last. */
    quiet() {
        mark(this.page.readout, "aria-busy", "true");
        clearTimeout(this.quietTimer);
        this.quietTimer = setTimeout(() => mark(this.page.readout, "aria-busy", "false"), 500);
    }

    /** Hands a request to the kernel and shows that it is under way when it takes long. */
    sent(content) {
        this.before = this.latest;
        this.latest = content.parameters;
        this.model.send(content);
        setTimeout(() => {
            if (this.requests.open?.id === content.id && content.kind !== "sweep") {
                this.page.root.dataset.busy = "true";
            }
        }, 400);
    }

    /** A message from Python. */
    receive(content, buffers) {
        const request = this.requests.take(content.id);
        if (content.kind === "frame") {
            this.receiveFrame(content, buffers[0], request);
        } else if (request !== null && content.kind === "sweep") {
            this.sweep.add(content, unpack(content.layout, buffers[0]));
        } else if (request !== null && content.kind === "netcdf") {
            saveFile(content.name, "application/x-netcdf", buffers);
            this.notice(`${content.name} saved.`);
        } else if (request !== null && content.kind === "refused") {
            this.refuse(content.text, request);
        }
        delete this.page.root.dataset.busy;
        this.requests.pump();
        if (content.kind === "sweep" || content.kind === "refused") {
            this.drawSweep();
        }
    }

    /** A frame: the next request leaves before the drawing, so that Python works meanwhile. */
    receiveFrame(content, buffer, request) {
        const start = performance.now();
        const used = content.readouts.parameters ?? {};
        if (request === null && (this.requests.open !== null || this.requests.wanted !== null)) {
            return; // of another view, and our own is on its way
        }
        this.frame = readFrame(content, buffer);
        const sentWith = request?.content.parameters;
        this.adopt(Object.fromEntries(Object.entries(used).filter(([name]) => !sentWith || same(sentWith[name], this.parameters[name]))));
        if (request !== null && ["learn", "forget", "next"].includes(request.content.kind)) {
            this.sweep.restart();
        }
        this.requests.pump();
        this.showReadouts();
        this.keepPlace();
        this.draw();
        const time = request?.time ?? start;
        this.el.dataset.draw = (performance.now() - start).toFixed(2);
        requestAnimationFrame(() => {
            this.el.dataset.frame = String(content.id);
            this.el.dataset.latency = (performance.now() - time).toFixed(1);
        });
    }

    /** What Python refuses is said in the status line (a sweep's refusal in its drawer); the last picture stays. */
    refuse(text, request) {
        if (request.content.kind === "sweep") {
            this.sweep.refuse(text);
        } else {
            write(this.page.refusal, text);
        }
    }

    /** A short message in the status line, until the next frame. */
    notice(text) {
        write(this.page.readout, text);
    }

    /** The texts and limits of the frame. */
    showReadouts() {
        const { readouts } = this.frame;
        const { controls } = this.panel;
        write(this.page.readout, readouts.text);
        this.page.remark.hidden = !readouts.remark;
        write(this.page.reason, readouts.remark ?? "");
        write(this.page.refusal, "");
        write(this.page.speed, finite(readouts.milliseconds) ? `Python ${Math.round(readouts.milliseconds)} ms` : "");
        for (const control of controls.values()) {
            control.limit?.(readouts.limits?.[control.spec.name] ?? null);
            control.under?.(this.frame.arrays.image.data, this.theme);
        }
        controls.get("sample")?.reach?.(readouts.samples - 1);
        this.page.buttons.find(({ dataset }) => dataset.action === "forget").disabled = !(readouts.learned > 0);
        this.page.move.track.style.setProperty("--border", this.frame.free / Math.max(this.frame.T - 1, 1));
    }

    /** Puts the cursor where it was within its phase, whatever the durations are now. */
    keepPlace() {
        const { times, T, free } = this.frame;
        const [first, last] = this.place.nudged && free + 1 < T ? [free + 1, T - 1] : [0, free];
        const time = times[first] + (times[last] - times[first]) * this.place.share;
        this.at = clamp(nearest(times, time), first, last);
        this.page.move.time.max = T - 1;
        this.showMoment();
    }

    /** Moves the cursor to row `index` of the frame. */
    seek(index) {
        if (this.frame === null) {
            return;
        }
        const { times, T, free } = this.frame;
        const before = this.place.nudged;
        this.at = clamp(Math.round(index), 0, T - 1);
        const nudged = this.at > free;
        const [first, last] = nudged ? [free + 1, T - 1] : [0, free];
        this.place = { nudged, share: last > first ? (times[this.at] - times[first]) / (times[last] - times[first]) : 1 };
        this.showMoment();
        this.turned = this.turned || nudged !== before;
        if (!this.cursorDue) {
            this.cursorDue = requestAnimationFrame(() => this.drawCursor());
        }
    }

    /** Moves the cursor to the row nearest to `time`. */
    seekTime(time) {
        if (this.frame !== null) {
            this.seek(nearest(this.frame.times, time));
        }
    }

    /** Slider and text of the cursor. */
    showMoment() {
        const { move } = this.page;
        const text = momentText(this.scene());
        move.time.value = this.at;
        move.track.style.setProperty("--at", this.at / Math.max(this.frame.T - 1, 1));
        mark(move.time, "aria-valuetext", text);
        write(move.moment, text);
    }

    /** What the views draw from. */
    scene() {
        const { about, theme, frame, at, sweep } = this;
        const { spec } = sweep;
        return { about, theme, frame, at, sweep: spec && { spec, points: sweep.points(), value: this.parameters[spec.name] } };
    }

    /** Draws every view. */
    draw() {
        if (this.frame === null || this.theme === null) {
            return;
        }
        const scene = this.scene();
        this.turned = false;
        this.cards.forEach((card) => card.draw(scene));
        this.drawSweep();
    }

    /** Draws the layer of the cursor; the picture below too where the cursor has passed into the other phase and the view shows it. */
    drawCursor() {
        this.cursorDue = null;
        if (this.signal.aborted || this.theme === null) {
            return;
        }
        const scene = this.scene();
        this.cards.forEach((card) => (this.turned && card.view.phased ? card.draw(scene) : card.drawCursor(scene)));
        this.turned = false;
    }

    /** Draws the sweep where its drawer is open. */
    drawSweep() {
        const { caption } = this.page.sweep;
        const { spec } = this.sweep;
        const opened = this.sweep.opened && spec !== null;
        write(caption, spec === null ? "" : `against ${spec.label}${opened ? ` · ${this.sweep.progress()}` : ""}`);
        if (opened && this.frame !== null && this.theme !== null) {
            const scene = this.scene();
            this.sweepCards.forEach((card) => card.draw(scene));
        }
    }

    /** Reads the theme again; true where it has changed. Outside the document there is nothing to read. */
    restyle() {
        const { root } = this.page;
        if (!root.isConnected) {
            return false;
        }
        const theme = readTheme(root, this.theme);
        const changed = theme !== this.theme;
        this.theme = theme;
        if (changed) {
            root.dataset.dark = String(theme.dark);
            root.style.setProperty("color-scheme", theme.dark ? "dark" : "light");
            this.panel.controls.forEach((control) => control.under?.(this.frame?.arrays.image.data ?? [], theme));
        }
        return changed;
    }

    /** Fits all canvases to their cards and the colours to the page; draws where something has changed. `ratio`: device pixels per CSS pixel. */
    fit(ratio = window.devicePixelRatio || 1) {
        const restyled = this.restyle();
        const resized = [...this.cards, ...this.sweepCards].filter((card) => card.resize(ratio));
        this.panel.controls.forEach((control) => control.fit?.());
        if (restyled || resized.length > 0) {
            this.draw();
        }
    }

    /** Starts or stops the movement of the cursor; from the end it begins again. */
    play(on = !this.playing) {
        this.playing = on && this.frame !== null;
        const { play } = this.page.move;
        play.replaceChildren(icon(this.playing ? PAUSE : PLAY));
        mark(play, "aria-label", this.playing ? "Pause" : "Play");
        if (!this.playing) {
            return;
        }
        if (this.at >= this.frame.T - 1) {
            this.seek(0);
        }
        let last = performance.now();
        let time = this.frame.times[this.at];
        const step = (now) => {
            if (!this.playing || this.signal.aborted) {
                return;
            }
            const { times, T } = this.frame;
            time += ((now - last) / 1000) * (times[T - 1] - times[0]) / PLAY_SECONDS;
            last = now;
            this.seekTime(time);
            if (time >= times[T - 1]) {
                this.play(false);
            } else {
                requestAnimationFrame(step);
            }
        };
        requestAnimationFrame(step);
    }

    /** Saves all views as one picture, drawn with at least two pixels per CSS pixel. */
    savePicture() {
        if (this.frame === null) {
            return;
        }
        const ratio = Math.max(window.devicePixelRatio || 1, 2);
        this.fit(ratio);
        const { theme, about, frame, page } = this;
        const sweep = this.sweep.opened ? [{ cards: this.sweepCards, area: page.sweep.grid }] : [];
        const picture = compose([{ cards: this.cards, area: page.views }, ...sweep], { title: about.title, text: frame.readouts.text, theme, ratio });
        this.fit();
        picture.toBlob((blob) => {
            saveFile(`explorer-${about.dataset}.png`, "image/png", [blob]);
            this.notice("Picture saved.");
        });
    }

    /** Ends all listeners and takes the page away. */
    close() {
        this.playing = false;
        clearTimeout(this.quietTimer);
        clearTimeout(this.traitTimer);
        this.aborter.abort();
        this.page.root.remove();
    }
}

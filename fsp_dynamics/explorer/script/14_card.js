/* A card: one view in a figure with its caption and two canvases, the picture and above it the layer of the cursor. */

class Card {
    /** `page` is { signal, seek(time), scene() }. */
    constructor(view, page) {
        this.view = view;
        this.page = page;
        this.memory = {};
        this.layout = null;
        this.probed = null;
        this.title = make("span", { class: "fsp-title", text: view.title });
        this.caption = make("span", { class: "fsp-caption" });
        this.enlarge = make("button", { type: "button", class: "fsp-small", "data-enlarges": view.name });
        this.hide = make("button", { type: "button", class: "fsp-small", "aria-label": `Hide ${view.title}`, title: "Hide", "data-hides": view.name }, icon(HIDE));
        const tools = view.fixed ? null : make("span", { class: "fsp-tools" }, this.enlarge, this.hide);
        this.base = make("canvas", { role: "img", "aria-label": view.title });
        this.over = make("canvas", { "aria-hidden": "true", class: view.timed ? "fsp-timed" : null });
        this.holder = make("div", { class: "fsp-canvas" }, this.base, this.over);
        this.element = make("figure", { "data-view": view.name, class: view.wide ? "fsp-wide" : null },
            make("figcaption", {}, this.title, this.caption, tools), this.holder);
        this.listen();
    }

    /** Gives both canvases the size of their holder, in device pixels; true where that changed anything. */
    resize(ratio) {
        const w = this.holder.clientWidth;
        const h = this.holder.clientHeight;
        const width = Math.round(w * ratio);
        const height = Math.round(h * ratio);
        if (this.base.width === width && this.base.height === height && this.ratio === ratio) {
            return false;
        }
        for (const canvas of [this.base, this.over]) {
            canvas.width = width;
            canvas.height = height;
        }
        Object.assign(this, { w, h, ratio });
        const c = this.base.getContext("2d");
        const { fontFamily } = getComputedStyle(this.element);
        c.font = `600 12px ${fontFamily}`;
        this.font = `400 11px ${fontFamily}`;
        this.room = w - c.measureText(this.view.title).width - (this.view.fixed ? 28 : 84); // for the caption
        return true;
    }

    /** A cleared pen on one of the canvases. */
    pen(canvas, theme) {
        const c = canvas.getContext("2d");
        c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
        c.clearRect(0, 0, this.w, this.h);
        return { c, w: this.w, h: this.h, ratio: this.ratio, theme, cut: this.cut };
    }

    /** Draws the picture, its description and its caption; a card without room draws nothing. */
    draw(scene) {
        if (!(this.w > 60 && this.h > 60)) {
            return;
        }
        this.cut = [];
        this.layout = this.view.draw(this.pen(this.base, scene.theme), scene, this.memory);
        mark(this.base, "aria-label", this.view.describe(scene));
        this.drawCursor(scene);
        this.element.dataset.cut = this.cut.join(" | "); // labels that were too long
    }

    /** Draws the layer above the picture, and what the caption says at the cursor. */
    drawCursor(scene) {
        if (this.view.cursor && this.layout !== null && this.w > 60) {
            this.view.cursor(this.pen(this.over, scene.theme), scene, this.layout);
        }
        this.say(scene);
    }

    /** The caption: what is under the pointer, else the view's own. A view may give several texts, the longest first: the first that fits. */
    say(scene) {
        const probed = this.probed && this.layout !== null && this.view.probe(scene, this.layout, ...this.probed);
        const texts = [probed || this.view.value?.(scene) || ""].flat();
        const c = this.base.getContext("2d");
        c.font = this.font;
        write(this.caption, texts.find((text) => c.measureText(text).width <= this.room) ?? texts.at(-1));
        mark(this.caption, "title", texts[0]);
    }

    /** Dragging over a view of time moves the cursor; hovering over one with a probe says what is there. */
    listen() {
        const { view, over, page } = this;
        const { signal } = page;
        const place = (event) => {
            const box = over.getBoundingClientRect();
            return [event.clientX - box.left, event.clientY - box.top];
        };
        const seek = (event) => {
            const box = this.layout?.box ?? this.layout;
            if (box?.atX) {
                page.seek(box.atX(place(event)[0]));
            }
        };
        if (view.timed) {
            over.addEventListener("pointerdown", (event) => {
                if (event.button === 0) {
                    over.setPointerCapture(event.pointerId);
                    seek(event);
                }
            }, { signal });
            over.addEventListener("pointermove", (event) => over.hasPointerCapture(event.pointerId) && seek(event), { signal });
        }
        if (view.probe) {
            const probe = (at) => {
                this.probed = at;
                const scene = page.scene();
                if (scene.frame !== null) {
                    this.say(scene);
                }
            };
            over.addEventListener("pointermove", (event) => probe(place(event)), { signal });
            over.addEventListener("pointerleave", () => probe(null), { signal });
        }
    }
}

/* Which views are on the page: all but the hidden ones, or one alone, enlarged. */

const ENLARGE = "M2.5 6.5v-4h4M13.5 9.5v4h-4M2.5 2.5l4.5 4.5M13.5 13.5L9 9";
const REDUCE = "M7 3v4H3M9 13V9h4M7 7L2.5 2.5M9 9l4.5 4.5";
const HIDE = "M3.5 3.5l9 9M12.5 3.5l-9 9";

class Viewing {
    /** `changed` is called when another set of views is shown; `grid`, once it is set, is told how many they are. */
    constructor(cards, signal, changed) {
        this.cards = cards;
        this.changed = changed;
        this.hidden = new Set();
        this.alone = null;
        this.grid = null;
        this.boxes = new Map(cards.map(({ view }) => [view.name, make("input", { type: "checkbox", checked: true, "data-shows": view.name })]));
        const rows = cards.map(({ view }) => make("label", {}, this.boxes.get(view.name), make("span", { text: view.title })));
        this.all = button("all", "Show all", "Show every view");
        const summary = make("summary", { class: "fsp-button", text: "Views", title: "Which views are shown" });
        this.menu = make("details", { class: "fsp-menu" }, summary, make("div", {}, ...rows, this.all));
        this.listen(signal);
        this.apply();
    }

    /** Connects the buttons of the cards, the boxes of the menu, and Escape. */
    listen(signal) {
        for (const card of this.cards) {
            const { name } = card.view;
            card.enlarge.addEventListener("click", () => this.show(this.hidden, this.alone === name ? null : name), { signal });
            card.hide.addEventListener("click", () => this.show(new Set([...this.hidden, name]), null), { signal });
            this.boxes.get(name).addEventListener("change", (event) => {
                const hidden = new Set(this.hidden);
                hidden[event.target.checked ? "delete" : "add"](name);
                this.show(hidden, null);
            }, { signal });
            card.element.addEventListener("keydown", (event) => event.key === "Escape" && this.alone !== null && this.show(this.hidden, null), { signal });
        }
        this.all.addEventListener("click", () => this.show(new Set(), null), { signal });
        this.menu.addEventListener("keydown", (event) => {
            if (event.key === "Escape") {
                this.menu.open = false;
                this.menu.firstChild.focus();
            }
        }, { signal });
        document.addEventListener("pointerdown", (event) => {
            if (!this.menu.contains(event.target)) {
                this.menu.open = false;
            }
        }, { signal });
    }

    /** Shows the views that are not `hidden`, or the one `alone`. */
    show(hidden, alone) {
        this.hidden = hidden;
        this.alone = alone;
        this.apply();
        this.changed();
    }

    /** Writes what is shown into cards and menu. The last view cannot be hidden. */
    apply() {
        const left = this.cards.length - this.hidden.size;
        for (const { view, element, enlarge, hide } of this.cards) {
            const shown = !this.hidden.has(view.name);
            const large = this.alone === view.name;
            element.hidden = this.alone === null ? !shown : !large;
            enlarge.replaceChildren(icon(large ? REDUCE : ENLARGE));
            mark(enlarge, "aria-label", large ? `${view.title}: back to all views` : `Enlarge ${view.title}`);
            mark(enlarge, "aria-pressed", String(large));
            enlarge.title = large ? "Back to all views (Esc)" : "Enlarge";
            hide.hidden = large || left === 1;
            const box = this.boxes.get(view.name);
            box.checked = shown;
            box.disabled = shown && left === 1;
        }
        this.all.disabled = this.hidden.size === 0;
        this.grid?.setAttribute("data-shown", this.alone === null ? left : 1);
    }
}

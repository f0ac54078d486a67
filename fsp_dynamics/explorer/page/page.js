/* The explorer without a notebook: what anywidget does there, over HTTP. */

import explorer from "./explorer.js";

/** A reply as `PageServer.reply` packs it: { content, buffers }. */
function unpackReply(bytes) {
    const size = new DataView(bytes).getUint32(0, true);
    const content = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
    return { content, buffers: [new DataView(bytes, 4 + size)] };
}

/** The part of a widget's model that the explorer uses. */
class PageModel {
    constructor(state) {
        this.state = state;
        this.listeners = new Map();
    }

    get(name) {
        return this.state[name];
    }

    on(event, listener) {
        this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
    }

    off(event, listener) {
        this.listeners.set(event, (this.listeners.get(event) ?? []).filter((each) => each !== listener));
    }

    /** Sends a message; its reply comes as "msg:custom", as from a kernel. */
    async send(message) {
        let reply;
        try {
            const answer = await fetch("message", { method: "POST", body: JSON.stringify(message) });
            if (!answer.ok) {
                throw new Error(`${answer.status} ${answer.statusText}`);
            }
            reply = unpackReply(await answer.arrayBuffer());
        } catch {
            const text = "Python does not answer: fsp explore has ended, or was started anew. Start it again and open the page that it names.";
            reply = { content: { kind: "refused", id: message.id, text }, buffers: [] };
        }
        (this.listeners.get("msg:custom") ?? []).forEach((listener) => listener(reply.content, reply.buffers));
    }
}

try {
    const model = new PageModel(await (await fetch("model.json")).json());
    document.title = `Explorer: ${model.get("about").title}`;
    explorer.render({ model, el: document.body.appendChild(document.createElement("main")) });
} catch (error) {
    const line = document.createElement("p");
    line.textContent = `The explorer cannot be shown: ${error}`;
    document.body.append(line);
}

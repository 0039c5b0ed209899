// What all pages are made of.

import { type ComponentChildren, render } from "preact";
import { useCallback, useEffect, useId, useRef, useState } from "preact/hooks";

export const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Asks again and again while the page is looked at. The last answer stays while the peer is silent, with the reason beside it. */
export function usePoll<T>(ask: () => Promise<T>, everyMs: number): { data?: T; error?: string; again: () => Promise<void> } {
  const [state, setState] = useState<{ data?: T; error?: string }>({});
  const again = useCallback(async () => {
    try {
      const data = await ask();
      setState({ data });
    } catch (error) {
      setState((before) => ({ ...before, error: words(error) }));
    }
  }, []);
  useEffect(() => {
    let timer = 0;
    let ended = false;
    const turn = async () => {
      if (!document.hidden) await again();
      if (!ended) timer = window.setTimeout(turn, everyMs);
    };
    void turn();
    const seen = () => !document.hidden && void again();
    document.addEventListener("visibilitychange", seen);
    return () => {
      ended = true;
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, []);
  return { ...state, again };
}

/** A sentence of the peer's, which sets commands in backticks. */
export const Sentence = (props: { text: string }) => (
  <>{props.text.split("`").map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part))}</>
);

export function Card(props: { title: string; aside?: ComponentChildren; class?: string; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class={`card ${props.class ?? ""}`} aria-labelledby={id}>
      <header>
        <h2 id={id}>{props.title}</h2>
        {props.aside}
      </header>
      {props.children}
    </section>
  );
}

/** A table of names: its columns with their classes, and one for what can be done with each. */
export function List(props: { columns: [name: string, look?: string][]; children: ComponentChildren }) {
  return (
    <table class="list">
      <thead>
        <tr>
          {props.columns.map(([name, look]) => (
            <th key={name} scope="col" class={look}>
              {name}
            </th>
          ))}
          <th scope="col">
            <span class="unseen">Actions</span>
          </th>
        </tr>
      </thead>
      <tbody>{props.children}</tbody>
    </table>
  );
}

/** What a page says when it has nothing to show. */
export function Empty(props: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>
        <strong>{props.title}</strong>
      </p>
      {props.children}
    </div>
  );
}

export function Problem(props: { words?: string }) {
  return (
    <div role="alert" class={props.words ? "problem" : ""}>
      {props.words}
    </div>
  );
}

/** A share of a whole, drawn. */
export function Meter(props: { value: number; of: number; label: string; class?: string }) {
  const share = props.of > 0 ? Math.min(1, props.value / props.of) : 0;
  return (
    <div class={`meter ${props.class ?? ""}`} role="progressbar" aria-label={props.label} aria-valuenow={Math.round(share * 100)} aria-valuemin={0} aria-valuemax={100}>
      <div style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** A window over the page, which the browser itself makes modal. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={props.close}>
      <header>
        <h2 id={id}>{props.title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick={() => dialog.current?.close()}>
          ✕
        </button>
      </header>
      {props.children}
    </dialog>
  );
}

/** A form that does something, says so while it does, and why it could not. */
export function Act(props: {
  label: string;
  danger?: boolean;
  act: (form: FormData) => Promise<unknown>;
  done?: () => void;
  children?: ComponentChildren;
}) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string>();
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    setBusy(true);
    setProblem(undefined);
    try {
      await props.act(form);
      props.done?.();
    } catch (error) {
      setProblem(words(error));
    }
    setBusy(false);
  };
  return (
    <form onSubmit={submit}>
      {props.children}
      <Problem words={problem} />
      <footer>
        <button type="submit" class={props.danger ? "danger" : "main"} disabled={busy}>
          {busy ? "One moment…" : props.label}
        </button>
      </footer>
    </form>
  );
}

export function Field(props: { label: string; hint?: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{props.label}</span>
      {props.children}
      {props.hint && <small>{props.hint}</small>}
    </label>
  );
}

/** How long something that is handed out is good, in seconds; the form's `lasts`. */
export function Lasts() {
  return (
    <select name="lasts">
      <option value="3600">an hour</option>
      <option value="86400">a day</option>
      <option value="604800">a week</option>
    </select>
  );
}

/** Asks before what cannot be undone; answers what was said. */
export function confirm(title: string, text: ComponentChildren, label: string): Promise<boolean> {
  return new Promise((resolve) => {
    const host = document.body.appendChild(document.createElement("div"));
    const answer = (said: boolean) => {
      render(null, host);
      host.remove();
      resolve(said);
    };
    render(
      <Dialog title={title} close={() => answer(false)}>
        <div class="prose">{text}</div>
        <footer>
          <button type="button" onClick={() => answer(false)}>
            Cancel
          </button>
          <button type="button" class="danger" onClick={() => answer(true)}>
            {label}
          </button>
        </footer>
      </Dialog>,
      host,
    );
  });
}

/** Text to take along. */
export function Copy(props: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const copy = async () => {
    field.current?.select();
    // Browsers without TLS have only the old way.
    if (navigator.clipboard) await navigator.clipboard.writeText(props.text).catch(() => document.execCommand("copy"));
    else document.execCommand("copy");
    setCopied(true);
    window.setTimeout(() => setCopied(false), 2000);
  };
  return (
    <div class="copy">
      <textarea ref={field} readOnly rows={Math.min(7, props.text.split("\n").reduce((rows, line) => rows + Math.ceil(line.length / 32), 0))} aria-label={props.label} value={props.text} />
      <button type="button" onClick={copy}>
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

/** Says something once, at the edge of the page and to screen readers. */
export function say(text: string, isBad = false): void {
  const notice = document.createElement("p");
  notice.textContent = text;
  notice.className = isBad ? "bad" : "";
  document.querySelector("#notices")?.append(notice);
  window.setTimeout(() => notice.remove(), isBad ? 12_000 : 5_000);
}

/** Does something that has no form of its own. */
export async function attempt(act: () => Promise<unknown>, done?: string): Promise<void> {
  try {
    await act();
    if (done) say(done);
  } catch (error) {
    say(words(error), true);
  }
}

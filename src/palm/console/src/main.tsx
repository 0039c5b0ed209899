import { render } from "preact";
import { useEffect, useState } from "preact/hooks";

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { api, LOGGED_OUT, type Session } from "./api";
import { Browse } from "./browse";
import { Buckets } from "./buckets";
import { Keys } from "./keys";
import { Login } from "./login";
import { Overview } from "./overview";
import { Peers } from "./peers";
import { Theme } from "./theme";

const PAGES = ["overview", "peers", "buckets", "keys"] as const;

/** Where the address bar says we are: `#/buckets/photos/2026/` is the folder `2026/` of the bucket `photos`. */
function usePlace(): string[] {
  const read = () => {
    const parts = window.location.hash.replace(/^#\/?/, "").split("/");
    try {
      return parts.map(decodeURIComponent);
    } catch {
      return []; // typed by hand
    }
  };
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const changed = () => setPlace(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return place;
}

function Page(props: { session: Session }) {
  const [page, bucket, ...folders] = usePlace();
  const session = props.session;
  switch (page) {
    case "peers":
      return <Peers administrator={session.administrator} />;
    case "buckets":
      return bucket ? <Browse key={bucket} bucket={bucket} prefix={folders.join("/")} /> : <Buckets session={session} />;
    case "keys":
      return <Keys administrator={session.administrator} session={session} />;
    default:
      return <Overview administrator={session.administrator} />;
  }
}

function Frame(props: { session: Session; leave: () => void }) {
  const [page] = usePlace();
  const current = PAGES.find((name) => name === page) ?? "overview";
  useEffect(() => {
    document.title = `${current[0]?.toUpperCase()}${current.slice(1)} · ${props.session.pool} · PALM`;
  }, [current]);
  const logout = async () => {
    await api.logout().catch(() => undefined);
    props.leave();
  };
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href="#/overview">
          <img src="/console/icon.svg" alt="" width="32" height="32" />
          <span>
            <strong>{props.session.pool}</strong>
            <small>at {props.session.peer}</small>
          </span>
        </a>
        <nav aria-label="Pages">
          {PAGES.map((name) => (
            <a key={name} href={`#/${name}`} aria-current={name === current ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <div class="tools">
          <Theme />
          <button type="button" class="quiet" onClick={logout} title={`Logged in with ${props.session.access_key}`}>
            Log out
          </button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Page session={props.session} />
      </main>
      <footer class="foot">
        PALM {props.session.version} · {props.session.s3 ? "S3 at " : "no member in reach serves S3"}
        <code>{props.session.s3}</code>
      </footer>
    </>
  );
}

function Console() {
  // Undefined: not known yet.
  const [session, setSession] = useState<Session | null>();
  useEffect(() => {
    api.session().then(setSession, () => setSession(null));
    const left = () => setSession(null);
    window.addEventListener(LOGGED_OUT, left);
    return () => window.removeEventListener(LOGGED_OUT, left);
  }, []);
  return (
    <>
      {session === null && <Login enter={setSession} />}
      {session && <Frame session={session} leave={() => setSession(null)} />}
      <div id="notices" role="status" aria-live="polite" />
    </>
  );
}

const host = document.getElementById("console");
if (host) render(<Console />, host);

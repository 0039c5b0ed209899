// What the peer is asked, apart from S3. The same JSON as `palm … --json`.

/** The peer said no, and why. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** What marks a request as this page's own (see guard.rs). */
export const OWN = { "x-palm-console": "1" };
/** Told to the window when the session has ended. */
export const LOGGED_OUT = "palm-logged-out";

async function call<T>(path: string, request: RequestInit = {}): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(`/console/api${path}`, request);
  } catch {
    throw new Failure(0, "this peer does not answer");
  }
  if (answer.status === 401 && path !== "/login") window.dispatchEvent(new Event(LOGGED_OUT));
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Failure(answer.status, told.error ?? `the peer answered ${answer.status}`);
  }
  return answer.status === 204 ? (undefined as T) : answer.json();
}

const get = <T>(path: string) => call<T>(path);
const post = <T>(path: string, body: unknown = {}) =>
  call<T>(path, { method: "POST", headers: { ...OWN, "content-type": "application/json" }, body: JSON.stringify(body) });

export interface Session {
  access_key: string;
  account: string;
  user: string | null;
  administrator: boolean;
  pool: string;
  peer: string;
  version: string;
  /** The S3 endpoint; null: no member in reach has one. */
  s3: string | null;
}

/** The S3 endpoint for commands that are run elsewhere. */
export const endpoint = (session: Session): string => session.s3 ?? "http://PEER:9000";

export interface Tally {
  objects: number;
  bytes: number;
}

export interface Status {
  pool: string;
  pool_id: string;
  members: number;
  members_live: number;
  voters: number;
  voters_live: number;
  policy: string;
  consistency: string;
  can_lose: number;
  counted_seconds: number | null;
  repair_eta_seconds: number | null;
  health: {
    /** Unreadable, none, reduced, full. */
    objects: [Tally, Tally, Tally, Tally];
    segments_to_mend: number;
    queued: number;
    queued_bytes: number;
    bytes_per_second: number;
  };
  draining: { peer_id: string }[];
  words: string[];
}

export interface Member {
  peer_id: string;
  name: string;
  state: "live" | "absent";
  absent_seconds: number;
  voter: boolean;
  this_peer: boolean;
  joined_ms: number;
  addresses: string[];
  used_bytes: number | null;
  free_bytes: number | null;
  domain: string | null;
  version: string | null;
  round_trip_us: number | null;
}

export interface Waiting {
  peer_id: string;
  name: string;
  address: string;
  requested_ms: number;
}

export interface Members {
  members: Member[];
  waiting: Waiting[];
}

export interface Invited {
  join_token: string;
  expires_ms: number;
  pool_id: string;
  addresses: string[];
}

export interface Key {
  access_key: string;
  description: string;
  root: boolean;
  created_ms: number;
  account: string;
  user: string | null;
  enabled: boolean;
  expires_ms: number | null;
}

export interface NewKey {
  description: string;
  account?: string;
  user?: string;
  policies?: { name: string; document: string }[];
  expires_ms?: number;
}

export interface Sample {
  at_ms: number;
  requests: number;
  failed: number;
  received: number;
  sent: number;
  seconds: number;
}

export type Task = "repair" | "scrub" | "rebalance" | "gc" | "drain";

export interface TaskState {
  task: Task;
  doing: string;
  done: number;
  total: number;
  end: null | { done: { words: string[] } } | { failed: string };
}

export const api = {
  login: (access_key: string, secret_key: string) => post<Session>("/login", { access_key, secret_key }),
  logout: () => post<void>("/logout"),
  session: () => get<Session>("/session"),
  status: () => get<Status>("/v1/status"),
  members: () => get<Members>("/v1/members"),
  history: () => get<Sample[]>("/history"),
  approve: (peer_id: string) => post("/v1/approve", { peer_id }),
  refuse: (peer_id: string) => post("/v1/refuse", { peer_id }),
  invite: (expires_seconds: number) => post<Invited>("/v1/invite", { expires_seconds }),
  evict: (peer_id: string, reason: string) => post("/v1/members/evict", { peer_id, reason }),
  start: (task: Task) => post<TaskState>("/v1/tasks", { task, dry_run: false }),
  task: (task: Task) => post<TaskState>("/v1/tasks/state", task),
  undrain: () => post("/v1/drain/undo"),
  keys: () => get<{ keys: Key[] }>("/v1/keys"),
  createKey: (key: NewKey) => post<{ access_key: string; secret_key: string }>("/v1/keys", key),
  revokeKey: (access_key: string) => post("/v1/keys/revoke", { access_key }),
  enableKey: (access_key: string, enabled: boolean) => post("/v1/keys/enable", { access_key, enabled }),
  share: (bucket: string, key: string, version: string | null, seconds: number) =>
    post<{ url: string }>("/share", { bucket, key, version, seconds }),
};

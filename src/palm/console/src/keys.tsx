import { useState } from "preact/hooks";

import { api, endpoint, type Key, type NewKey, type Session } from "./api";
import { moment } from "./format";
import { Act, attempt, confirm, Copy, Dialog, Empty, Field, List, Problem, usePoll } from "./ui";

export function Keys(props: { administrator: boolean; session: Session }) {
  return (
    <>
      {props.administrator ? (
        <All session={props.session} />
      ) : (
        <>
          <h1>Keys</h1>
          <Empty title="Keys are made and revoked with the pool's root key.">
            <p>
              You are logged in with <code>{props.session.access_key}</code> of {props.session.user ?? props.session.account}.
            </p>
          </Empty>
        </>
      )}
    </>
  );
}

function All(props: { session: Session }) {
  const { data, error, again } = usePoll(api.keys, 10_000);
  const [creating, setCreating] = useState(false);
  const revoke = async (key: Key) => {
    const text = <p>No peer takes it any more, and what it has signed is void. It cannot be brought back.</p>;
    if (!(await confirm(`Revoke ${key.access_key}?`, text, "Revoke"))) return;
    await attempt(async () => (await api.revokeKey(key.access_key), again()), `${key.access_key} is revoked`);
  };
  const enable = (key: Key) => attempt(async () => (await api.enableKey(key.access_key, !key.enabled), again()));
  return (
    <>
      <div class="head">
        <h1>Keys</h1>
        <button type="button" class="main" onClick={() => setCreating(true)}>
          Create a key
        </button>
      </div>
      <Problem words={error} />
      {data && (
        <List columns={[["Access key"], ["Whose", "wide"], ["Created", "wide"]]}>
          {data.keys.map((key) => (
            <tr key={key.access_key} class={key.enabled ? "" : "old"}>
              <th scope="row">
                <code>{key.access_key}</code>
                {key.root && <span class="tag good">root</span>}
                {!key.enabled && <span class="tag">disabled</span>}
                {key.expires_ms && <span class="tag">until {moment(key.expires_ms)}</span>}
                {key.user && <small class="narrow">{key.user}</small>}
                {!key.root && <small class="dim">{key.description}</small>}
              </th>
              <td class="wide">{key.user ? `${key.user}, ${key.account}` : key.account}</td>
              <td class="wide dim">{moment(key.created_ms)}</td>
              <td class="actions">
                {!key.root && (
                  <>
                    <button type="button" class="quiet" onClick={() => enable(key)}>
                      {key.enabled ? "Disable" : "Enable"}
                    </button>
                    <button type="button" class="quiet" onClick={() => revoke(key)} aria-label={`Revoke ${key.access_key}`}>
                      Revoke
                    </button>
                  </>
                )}
              </td>
            </tr>
          ))}
        </List>
      )}
      {creating && <Create session={props.session} again={again} close={() => setCreating(false)} />}
    </>
  );
}

const READ = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation"];

/** What a form wishes, as the peer takes it: a key that may not do everything belongs to a user with a policy. */
function wish(form: FormData): NewKey {
  const description = String(form.get("description"));
  const may = form.get("may");
  const days = Number(form.get("days"));
  const expires = days > 0 ? { expires_ms: Date.now() + days * 86_400_000 } : {};
  if (may === "all") return { description, ...expires };
  const bucket = String(form.get("bucket") || "*");
  const Resource = [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`];
  const Statement = [{ Effect: "Allow", Action: may === "read" ? READ : ["s3:*"], Resource }];
  const document = JSON.stringify({ Version: "2012-10-17", Statement });
  return { description, policies: [{ name: "console", document }], ...expires };
}

function Create(props: { session: Session; again: () => Promise<void>; close: () => void }) {
  const [made, setMade] = useState<{ access_key: string; secret_key: string }>();
  const [may, setMay] = useState("all");
  if (made) {
    const lines = [
      `export AWS_ACCESS_KEY_ID=${made.access_key}`,
      `export AWS_SECRET_ACCESS_KEY=${made.secret_key}`,
      `export AWS_ENDPOINT_URL=${endpoint(props.session)}`,
    ];
    return (
      <Dialog title="The new key" close={props.close}>
        <p>
          <strong>The secret is shown this once.</strong> Keep it now; nobody can show it again.
        </p>
        <Copy label="Access key" text={made.access_key} />
        <Copy label="Secret key" text={made.secret_key} />
        <p>For a shell:</p>
        <Copy label="Lines for a shell" text={lines.join("\n")} />
      </Dialog>
    );
  }
  const act = async (form: FormData) => {
    setMade(await api.createKey(wish(form)));
    await props.again();
  };
  return (
    <Dialog title="Create a key" close={props.close}>
      <Act label="Create" act={act}>
        <Field label="What it is for">
          <input name="description" required maxLength={200} autocomplete="off" autofocus />
        </Field>
        <Field label="It may">
          <select name="may" value={may} onChange={(event) => setMay(event.currentTarget.value)}>
            <option value="all">do everything, in all buckets</option>
            <option value="write">read and write one bucket</option>
            <option value="read">only read one bucket</option>
          </select>
        </Field>
        {may !== "all" && (
          <Field label="Bucket">
            <input name="bucket" required minLength={3} maxLength={63} autocomplete="off" autocapitalize="off" spellcheck={false} />
          </Field>
        )}
        <Field label="Good for">
          <select name="days">
            <option value="0">ever, until revoked</option>
            <option value="1">a day</option>
            <option value="30">30 days</option>
            <option value="365">a year</option>
          </select>
        </Field>
      </Act>
    </Dialog>
  );
}

import { useEffect, useRef, useState } from "preact/hooks";

import { api } from "./api";
import { bytes, counted, moment } from "./format";
import { downloadUrl, isReachable, isVersioned, list, listAll, type Listed, type Page, remove, setVersioned } from "./s3";
import { Act, attempt, confirm, Copy, Dialog, Empty, Field, Lasts, List, Problem, words } from "./ui";
import { type Chosen, Uploads, useDrop, useUploads } from "./uploads";

const link = (bucket: string, prefix: string) => `#/buckets/${[bucket, ...prefix.split("/")].map(encodeURIComponent).join("/")}`;

/** The pages of a folder that were asked for so far. */
function useFolder(bucket: string, prefix: string, versions: boolean) {
  const [page, setPage] = useState<Page>();
  const [problem, setProblem] = useState<string>();
  // An answer to a question that is no longer asked is passed over.
  const asked = useRef(0);
  const ask = async (before?: Page) => {
    const mine = ++asked.current;
    try {
      const next = await list(bucket, prefix, versions, before?.next ?? null);
      if (mine !== asked.current) return;
      setProblem(undefined);
      setPage({ ...next, folders: [...(before?.folders ?? []), ...next.folders], objects: [...(before?.objects ?? []), ...next.objects] });
    } catch (error) {
      if (mine === asked.current) setProblem(words(error));
    }
  };
  useEffect(() => {
    setPage(undefined);
    void ask();
  }, [bucket, prefix, versions]);
  return { page, problem, again: () => ask(), more: () => ask(page) };
}

export function Browse(props: { bucket: string; prefix: string }) {
  const { bucket, prefix } = props;
  const [versioned, setVersions] = useState<boolean>();
  const [showing, setShowing] = useState(false);
  const { page, problem, again, more } = useFolder(bucket, prefix, showing);
  const current = useRef(again);
  current.current = again;
  const uploads = useUploads(bucket, () => void current.current());
  const over = useDrop((files) => uploads.add(prefix, files));
  const [shared, setShared] = useState<Listed>();
  useEffect(() => {
    // Who may not know is not shown the switch.
    isVersioned(bucket).then(setVersions, () => setVersions(undefined));
  }, [bucket]);

  const choose = (event: Event) => {
    const input = event.currentTarget as HTMLInputElement;
    const files: Chosen[] = [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    uploads.add(prefix, files);
    input.value = "";
  };
  const removeObject = async (object: Listed) => {
    const forGood = !versioned || object.version;
    const text = <p>{forGood ? "It cannot be brought back." : "Its versions stay, and can be shown and downloaded."}</p>;
    if (!(await confirm(`Delete ${object.key}?`, text, "Delete"))) return;
    await attempt(async () => (await remove(bucket, [object]), again()), `${object.key} is deleted`);
  };
  const removeFolder = async (folder: string) => {
    await attempt(async () => {
      const objects = await listAll(bucket, folder);
      const text = <p>All {counted(objects.length, "object")} below it {objects.length === 1 ? "goes" : "go"} too.</p>;
      if (!(await confirm(`Delete the folder ${folder}?`, text, "Delete"))) return;
      await remove(bucket, objects);
      await again();
    });
  };
  const isEmpty = page && page.folders.length === 0 && page.objects.length === 0;
  return (
    <>
      <div class="head">
        <h1>
          <Crumbs bucket={bucket} prefix={prefix} />
        </h1>
        <label class="button main">
          Upload files
          <input type="file" class="unseen" multiple onChange={choose} />
        </label>
      </div>
      {versioned !== undefined && (
        <div class="row switches">
          <label class="check">
            <input
              type="checkbox"
              checked={versioned}
              onChange={() => attempt(async () => (await setVersioned(bucket, !versioned), setVersions(!versioned)))}
            />
            Keep old versions
          </label>
          <label class="check">
            <input type="checkbox" checked={showing} onChange={() => setShowing(!showing)} />
            Show versions
          </label>
        </div>
      )}
      <Problem words={problem} />
      <Uploads queue={uploads.queue} clear={uploads.clear} />
      {isEmpty && (
        <Empty title="There is nothing here yet.">
          <p>Drop files or folders anywhere on this page.</p>
        </Empty>
      )}
      {page && !isEmpty && (
        <List columns={[["Name"], ["Size", "right wide"], ["Changed", "wide"]]}>
          {page.folders.map((folder) => (
            <tr key={folder}>
              <th scope="row">
                <a href={link(bucket, folder)}>
                  <span class="icon folder" aria-hidden="true" />
                  {folder.slice(prefix.length)}
                </a>
              </th>
              <td class="wide" />
              <td class="wide" />
              <td class="actions">
                <button type="button" class="quiet" onClick={() => removeFolder(folder)} aria-label={`Delete the folder ${folder}`}>
                  Delete
                </button>
              </td>
            </tr>
          ))}
          {page.objects.map((object) => (
            <Row key={object.key + object.version} {...{ bucket, prefix, object }} share={() => setShared(object)} remove={() => removeObject(object)} />
          ))}
        </List>
      )}
      {page?.next && (
        <p class="center">
          <button type="button" onClick={more}>
            Show more
          </button>
        </p>
      )}
      {over && <div class="drop">Drop to upload to {prefix || bucket}</div>}
      {shared && <Share bucket={bucket} object={shared} close={() => setShared(undefined)} />}
    </>
  );
}

function Row(props: { bucket: string; prefix: string; object: Listed; share: () => void; remove: () => void }) {
  const { bucket, prefix, object } = props;
  const name = object.key.slice(prefix.length) || "(the folder itself)";
  const readable = isReachable(object.key) && !object.marker;
  return (
    <tr class={object.marker || object.latest === false ? "old" : ""}>
      <th scope="row">
        <span class="icon file" aria-hidden="true" />
        {readable ? (
          <a href={downloadUrl(bucket, object)} download>
            {name}
          </a>
        ) : (
          <span title={object.marker ? "Deleted" : "A browser cannot reach keys with “.” or “..” as a part"}>{name}</span>
        )}
        {object.marker && <span class="tag">deleted</span>}
        {object.latest && !object.marker && <span class="tag good">latest</span>}
        {!object.marker && <small class="narrow dim">{bytes(object.size)}</small>}
      </th>
      <td class="right wide">{object.marker ? "" : bytes(object.size)}</td>
      <td class="wide dim">{moment(object.modified)}</td>
      <td class="actions">
        {readable && (
          <button type="button" class="quiet" onClick={props.share} aria-label={`Share ${name}`}>
            Share
          </button>
        )}
        <button type="button" class="quiet" onClick={props.remove} aria-label={`Delete ${name}`}>
          Delete
        </button>
      </td>
    </tr>
  );
}

function Crumbs(props: { bucket: string; prefix: string }) {
  const parts = props.prefix.split("/").filter((part, at, all) => at < all.length - 1 || part);
  return (
    <nav class="crumbs" aria-label="Folders">
      <a href="#/buckets">Buckets</a>
      <a href={link(props.bucket, "")} aria-current={parts.length === 0 ? "location" : undefined}>
        {props.bucket}
      </a>
      {parts.map((part, at) => (
        <a key={at} href={link(props.bucket, `${parts.slice(0, at + 1).join("/")}/`)} aria-current={at === parts.length - 1 ? "location" : undefined}>
          {part}
        </a>
      ))}
    </nav>
  );
}

function Share(props: { bucket: string; object: Listed; close: () => void }) {
  const [url, setUrl] = useState<string>();
  const { bucket, object } = props;
  const act = async (form: FormData) => {
    setUrl((await api.share(bucket, object.key, object.version ?? null, Number(form.get("lasts")))).url);
  };
  return (
    <Dialog title={`Share ${object.key.split("/").pop()}`} close={props.close}>
      {url ? (
        <>
          <p>Whoever has this link can download the object, as long as the key that signed it may.</p>
          <Copy text={url} label="Link" />
          <p>
            <a href={url} target="_blank" rel="noreferrer">
              Open the link
            </a>
          </p>
        </>
      ) : (
        <Act label="Make a link" act={act}>
          <Field label="Good for">
            <Lasts />
          </Field>
        </Act>
      )}
    </Dialog>
  );
}

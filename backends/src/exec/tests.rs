//! The example plug-in through the suite, and programs that hang, die and lie.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Lifetime};

/// The example of the repository.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/backend-plugin/palm-backend-dir")
}

async fn open(dir: &Path, max_bytes: u64) -> ExecFragments {
    let mut options = ExecOptions::new(example());
    options.options.insert("dir".to_owned(), dir.display().to_string());
    options.options.insert("max_bytes".to_owned(), max_bytes.to_string());
    ExecFragments::open(options).await.unwrap()
}

/// A program of a few lines of Python; `act` is called with the header and body of each call after the greeting, and `answer`
/// answers.
fn program(dir: &Path, act: &str) -> PathBuf {
    let path = dir.join("program");
    let text = format!(
        r#"#!/usr/bin/env python3
import json, os, struct, sys, time
def answer(call, body=b"", **fields):
    header = json.dumps({{"call": call, **fields}}).encode()
    sys.stdout.buffer.write(struct.pack(">II", len(header), len(body)) + header + body)
    sys.stdout.buffer.flush()
def act(header, body):
{act}
while True:
    lengths = sys.stdin.buffer.read(8)
    if len(lengths) < 8: break
    header_len, body_len = struct.unpack(">II", lengths)
    header, body = json.loads(sys.stdin.buffer.read(header_len)), sys.stdin.buffer.read(body_len)
    if header["do"] == "hello": answer(header["call"], ok={{"protocol": 1}})
    else: act(header, body)
"#,
        act = act.lines().fold(String::new(), |text, line| text + "    " + line + "\n"),
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn store(program: PathBuf) -> ExecFragments {
    let options = ExecOptions { timeout: Duration::from_secs(8), ..ExecOptions::new(program) };
    loop {
        match ExecFragments::open(options.clone()).await {
            // A child that another test starts has a copy of the file, open for writing, until it runs its own program.
            Err(error) if error.to_string().contains("busy") => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_conforms() {
    let dir = TempDir::new().unwrap();
    let open_named = async |name: &str| Arc::new(open(&dir.path().join(name), u64::MAX).await) as _;
    conformance::fragments(Lifetime::Persistent, open_named).await;
    let full = open(&dir.path().join("full"), 1 << 20).await;
    conformance::fragments_when_full(Arc::new(full), 1 << 20).await;
}

/// Scenario: the program hangs. Danger: every request to this peer hangs with it. Expectation: an error in its time; the
/// program is killed and, asked again, started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_hangs_is_killed() {
    let dir = TempDir::new().unwrap();
    let path = program(
        dir.path(),
        "if header['do'] == 'usage': answer(header['call'], ok={'fragments': os.getpid(), 'bytes': 0, 'free': None})",
    );
    let store = store(path).await;
    let first = store.usage().await.unwrap().fragments;
    let begun = Instant::now();
    assert!(matches!(store.stat(FragmentId::of(b"x")).await, Err(StoreError::Io(_))));
    assert!(begun.elapsed() < Duration::from_secs(25));
    let second = loop {
        match store.usage().await {
            Ok(usage) => break usage.fragments,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_ne!(first, second, "another process answers");
    assert!(!Path::new(&format!("/proc/{first}")).exists(), "the first is gone");
}

/// Scenario: the program dies in the middle of an upload, and comes back. Danger: half a fragment is acknowledged, or the
/// second half goes to a program that never saw the first. Expectation: the upload fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_ends_with_its_program() {
    let dir = TempDir::new().unwrap();
    let path = program(dir.path(), "if header['do'] == 'stat': os._exit(1)\nanswer(header['call'], ok={'len': 5})");
    let store = store(path).await;
    let mut writer = store.writer(None).await.unwrap();
    writer.write(Bytes::from_static(b"hello")).await.unwrap();
    assert!(store.stat(FragmentId::of(b"x")).await.is_err());
    assert!(matches!(writer.finish().await, Err(StoreError::Io(_))));
}

/// Scenario: the program answers too much, too little, or about something else. Danger: it is believed, or its gigabytes are
/// held in memory. Expectation: an error each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_lies_is_not_believed() {
    let dir = TempDir::new().unwrap();
    let lies = "\
call = header['call']
if header['do'] == 'stat': answer(call, ok={'lens': [10]})
elif header['do'] == 'read': answer(call, b'123456789', ok={})
elif header['do'] == 'finish': answer(call, ok={'len': 4})
elif header['do'] == 'list': answer(call, ok={'fragments': [['ff' * 32, 1], ['00' * 32, 1]]})
elif header['do'] == 'delete': answer(call, ok={'found': 'perhaps'})
else: answer(call, ok={})";
    let store = store(program(dir.path(), lies)).await;
    let id = FragmentId::of(b"x");
    assert!(matches!(store.get(id).await, Err(StoreError::Corrupt(_))), "nine bytes of ten");
    assert!(matches!(store.put(Bytes::from_static(b"hello")).await, Err(StoreError::Corrupt(_))), "four bytes of five");
    assert!(matches!(store.list(None, 10).await, Err(StoreError::Corrupt(_))), "out of order");
    assert!(matches!(store.list(None, 1).await, Err(StoreError::Corrupt(_))), "more than asked for");
    assert!(matches!(store.delete(id).await, Err(StoreError::Corrupt(_))));
    assert!(matches!(store.usage().await, Err(StoreError::Corrupt(_))));
}

/// Scenario: the program is not there, is none, speaks another protocol. Danger: a peer that does not start and does not say
/// why. Expectation: words that name the program.
#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let dir = TempDir::new().unwrap();
    let said = |error: OpenError| error.to_string();
    let absent = ExecFragments::open(ExecOptions::new(dir.path().join("nothing"))).await.map(drop).unwrap_err();
    assert!(said(absent).contains("nothing cannot be started"));
    let path = dir.path().join("silent");
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let silent = ExecFragments::open(ExecOptions::new(&path)).await.map(drop).unwrap_err();
    assert!(said(silent).contains("silent"));
}

//! One thread, virtual time: tasks that await timers, messages and locks, in an order that only the seed decides.
//!
//! The simulated shell is written like the real one, as `async fn`s, so that a crash at *any* step is what it is
//! there: the task is dropped where it waits. No waker is needed: every leaf future knows its task by its number.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Microseconds of virtual time.
pub type Micros = u64;
/// Number of a task; never used twice.
pub type TaskId = u64;
/// Who dies together: the tasks of one life of a peer. Zero belongs to nobody.
pub type Owner = u64;

type BoxFuture = Pin<Box<dyn Future<Output = ()>>>;

enum Event {
    Wake(TaskId),
    Run(Box<dyn FnOnce()>),
}

/// An event and when it is due; among equals the one that was scheduled first comes first.
struct Due {
    at: Micros,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// The executor. Deterministic: no hash order, no clock, no thread.
#[derive(Default)]
pub struct Exec {
    now: Cell<Micros>,
    current: Cell<TaskId>,
    next: Cell<u64>,
    tasks: RefCell<BTreeMap<TaskId, (Owner, Option<BoxFuture>)>>,
    ready: RefCell<VecDeque<TaskId>>,
    due: RefCell<BinaryHeap<Due>>,
}

impl Exec {
    /// Virtual time.
    pub fn now(&self) -> Micros {
        self.now.get()
    }

    /// The task that runs now.
    pub fn current(&self) -> TaskId {
        self.current.get()
    }

    /// A number never given before.
    pub fn fresh(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Starts a task; it dies with its owner.
    pub fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        let id = self.fresh();
        self.tasks.borrow_mut().insert(id, (owner, Some(Box::pin(future))));
        self.wake(id);
    }

    /// Lets a task look again at what it waits for. A task that is no more is no mistake.
    pub fn wake(&self, task: TaskId) {
        self.ready.borrow_mut().push_back(task);
    }

    fn schedule(&self, at: Micros, event: Event) {
        let order = self.fresh();
        self.due.borrow_mut().push(Due { at: at.max(self.now()), order, event });
    }

    /// Runs something later.
    pub fn after(&self, delay: Micros, run: impl FnOnce() + 'static) {
        self.schedule(self.now() + delay, Event::Run(Box::new(run)));
    }

    /// Wakes the current task later.
    pub fn wake_me_at(&self, at: Micros) {
        self.schedule(at, Event::Wake(self.current()));
    }

    /// Waits.
    pub async fn sleep(&self, delay: Micros) {
        let until = self.now() + delay;
        self.wake_me_at(until);
        std::future::poll_fn(|_| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Drops every task of an owner where it waits: a crash.
    pub fn kill(&self, owner: Owner) {
        let doomed: Vec<TaskId> =
            self.tasks.borrow().iter().filter(|(_, (of, _))| *of == owner).map(|(id, _)| *id).collect();
        for id in doomed {
            // Out of the borrow first: what it holds may wake others when it goes.
            let task = self.tasks.borrow_mut().remove(&id);
            drop(task);
        }
    }

    /// Runs until `done`, or until nothing is left to do before `limit`.
    pub fn run_until(&self, limit: Micros, done: impl Fn() -> bool) {
        let mut context = Context::from_waker(Waker::noop());
        while !done() {
            let ready = self.ready.borrow_mut().pop_front();
            if let Some(id) = ready {
                self.poll(id, &mut context);
                continue;
            }
            let Some(due) = self.due.borrow_mut().pop() else { return };
            if due.at > limit {
                self.due.borrow_mut().push(due);
                self.now.set(limit);
                return;
            }
            self.now.set(due.at);
            match due.event {
                Event::Wake(task) => self.poll(task, &mut context),
                Event::Run(run) => run(),
            }
        }
    }

    fn poll(&self, id: TaskId, context: &mut Context<'_>) {
        let Some(mut future) = self.tasks.borrow_mut().get_mut(&id).and_then(|(_, future)| future.take()) else {
            return;
        };
        self.current.set(id);
        let finished = future.as_mut().poll(context).is_ready();
        // It may have killed itself meanwhile.
        if let Some((_, place)) = self.tasks.borrow_mut().get_mut(&id) {
            *place = (!finished).then_some(future);
        }
        if finished {
            self.tasks.borrow_mut().remove(&id);
        }
    }

    /// Drops everything that is left: tasks hold on to the world, and the world to them.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        let due = std::mem::take(&mut *self.due.borrow_mut());
        drop(due);
        self.ready.borrow_mut().clear();
    }
}

/// What a task waits for from others: answers to calls, or the end of an operation.
pub struct Mailbox<T> {
    exec: Rc<Exec>,
    state: Rc<Letters<T>>,
}

struct Letters<T> {
    queue: RefCell<VecDeque<T>>,
    reader: Cell<TaskId>,
}

/// Where letters to a mailbox are put; dead once the mailbox is gone.
pub struct Sender<T> {
    exec: Rc<Exec>,
    state: std::rc::Weak<Letters<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { exec: Rc::clone(&self.exec), state: std::rc::Weak::clone(&self.state) }
    }
}

impl<T> Sender<T> {
    /// Puts a letter in, if anyone still waits.
    pub fn send(&self, letter: T) {
        if let Some(state) = self.state.upgrade() {
            state.queue.borrow_mut().push_back(letter);
            self.exec.wake(state.reader.get());
        }
    }
}

impl<T> Mailbox<T> {
    /// An empty one.
    pub fn new(exec: &Rc<Exec>) -> Self {
        let state = Letters { queue: RefCell::new(VecDeque::new()), reader: Cell::new(0) };
        Self { exec: Rc::clone(exec), state: Rc::new(state) }
    }

    /// Where to send to it.
    pub fn sender(&self) -> Sender<T> {
        Sender { exec: Rc::clone(&self.exec), state: Rc::downgrade(&self.state) }
    }

    /// The next letter; `None` when none has come by then.
    pub async fn recv(&self, until: Micros) -> Option<T> {
        self.exec.wake_me_at(until);
        std::future::poll_fn(|_| {
            self.state.reader.set(self.exec.current());
            match self.state.queue.borrow_mut().pop_front() {
                Some(letter) => Poll::Ready(Some(letter)),
                None if self.exec.now() >= until => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// A lock for many readers or one writer, in the order of asking.
pub struct Lock {
    exec: Rc<Exec>,
    state: RefCell<LockState>,
}

#[derive(Default)]
struct LockState {
    readers: usize,
    writer: bool,
    queue: VecDeque<(u64, TaskId)>,
}

/// Holds a [`Lock`].
pub struct Guard {
    lock: Rc<Lock>,
    exclusive: bool,
}

/// A place in a lock's queue, given up when the task dies waiting.
struct Turn {
    lock: Rc<Lock>,
    ticket: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lock.state.borrow_mut().queue.retain(|(ticket, _)| *ticket != self.ticket);
        self.lock.wake_first();
    }
}

impl Lock {
    /// A free one.
    pub fn new(exec: &Rc<Exec>) -> Rc<Self> {
        Rc::new(Self { exec: Rc::clone(exec), state: RefCell::default() })
    }

    fn wake_first(&self) {
        if let Some((_, task)) = self.state.borrow().queue.front() {
            self.exec.wake(*task);
        }
    }

    /// Shared with other readers.
    pub async fn read(self: &Rc<Self>) -> Guard {
        self.enter(false).await
    }

    /// For oneself.
    pub async fn write(self: &Rc<Self>) -> Guard {
        self.enter(true).await
    }

    async fn enter(self: &Rc<Self>, exclusive: bool) -> Guard {
        let turn = Turn { lock: Rc::clone(self), ticket: self.exec.fresh() };
        self.state.borrow_mut().queue.push_back((turn.ticket, self.exec.current()));
        std::future::poll_fn(|_| {
            let mut state = self.state.borrow_mut();
            let first = state.queue.front().is_some_and(|(ticket, _)| *ticket == turn.ticket);
            if !first || state.writer || (exclusive && state.readers > 0) {
                return Poll::Pending;
            }
            state.writer = exclusive;
            state.readers += usize::from(!exclusive);
            Poll::Ready(())
        })
        .await;
        drop(turn);
        Guard { lock: Rc::clone(self), exclusive }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        {
            let mut state = self.lock.state.borrow_mut();
            if self.exclusive {
                state.writer = false;
            } else {
                state.readers -= 1;
            }
        }
        self.lock.wake_first();
    }
}

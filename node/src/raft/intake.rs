//! Where arriving appends enter openraft: in the order of their arrival, many under way at once.
//!
//! ```text
//!   receive ──> queue (bounded) ──> Raft::stream_append ──> answers, in order
//! ```
//! openraft ends such a stream at the first append that it rejects. Those that it was given behind
//! that one may have been taken in or not: they are answered `Again`, and the next ones go into a new
//! stream. Appends may be repeated at will, so nothing is lost by it; and since they come from the
//! sender of the rejected one, which begins anew in any case, hardly anything is sent twice.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use openraft::Raft;
use openraft::raft::AppendEntriesRequest;
use tokio::sync::{mpsc, oneshot};

use super::state_machine::StateMachine;
use super::types::TypeConfig;
use super::wire::Answer;

/// Appends that wait for one replica: several times what a leader has under way.
const QUEUE_APPENDS_MAX: usize = 32;
/// Appends inside openraft at once.
const UNDER_WAY_MAX: usize = 16;

/// An append, and who waits for its answer. Whoever finds it dropped knows that the group stopped.
struct Arrived {
    request: AppendEntriesRequest<TypeConfig>,
    answer: oneshot::Sender<Answer>,
}

/// The way in. The task behind it ends with it.
#[derive(Debug)]
pub(super) struct Intake {
    queue: mpsc::Sender<Arrived>,
}

impl Intake {
    pub fn start(raft: Raft<TypeConfig, StateMachine>) -> Intake {
        let (queue, arriving) = mpsc::channel(QUEUE_APPENDS_MAX);
        tokio::spawn(run(raft, arriving));
        Intake { queue }
    }

    /// Takes an append in, without waiting. The answer is dropped if the group stops.
    pub fn append(&self, request: AppendEntriesRequest<TypeConfig>) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        if let Err(mpsc::error::TrySendError::Full(arrived)) =
            self.queue.try_send(Arrived { request, answer })
        {
            let _ = arrived.answer.send(Answer::Again);
        }
        answered
    }
}

async fn run(raft: Raft<TypeConfig, StateMachine>, mut arriving: mpsc::Receiver<Arrived>) {
    while let Some(first) = arriving.recv().await {
        let alive = feed(&raft, first, &mut arriving).await;
        if !alive {
            return;
        }
    }
}

/// Feeds one stream until openraft rejects an append (`true`), or stops.
async fn feed(
    raft: &Raft<TypeConfig, StateMachine>,
    first: Arrived,
    arriving: &mut mpsc::Receiver<Arrived>,
) -> bool {
    let (feed, fed) = mpsc::channel(UNDER_WAY_MAX);
    let fed = stream::unfold(fed, |mut fed| async move { fed.recv().await.map(|request| (request, fed)) });
    let mut answers = pin!(raft.stream_append(fed));
    let mut waiting: VecDeque<oneshot::Sender<Answer>> = VecDeque::with_capacity(UNDER_WAY_MAX);
    let mut next = Some(first);
    let alive = loop {
        if let Some(Arrived { request, answer }) = next.take() {
            // There is room: no more are in it than wait.
            if feed.try_send(request).is_err() {
                break false;
            }
            waiting.push_back(answer);
        }
        tokio::select! {
            biased;
            answer = answers.next() => match (answer, waiting.pop_front()) {
                (Some(Ok(appended)), Some(waiter)) => {
                    let rejected = appended.is_err();
                    // Whoever has gone away does not wait for it.
                    let _ = waiter.send(Answer::Append(appended));
                    if rejected {
                        break true;
                    }
                }
                _ => break false,
            },
            arrived = arriving.recv(), if waiting.len() < UNDER_WAY_MAX => match arrived {
                Some(arrived) => next = Some(arrived),
                None => return false,
            },
        }
    };
    if alive {
        waiting.into_iter().for_each(|waiter| drop(waiter.send(Answer::Again)));
    }
    alive
}

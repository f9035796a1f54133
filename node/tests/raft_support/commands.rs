//! Commands for the ledger's machine, and what came of them.

use bytes::Bytes;
use purser_ledger::amount::Asset;
use purser_ledger::command::{
    BatchEncoder, BurnPolicy, ChargeScope, Command, CreateWallet, Header, Operation,
};
use purser_ledger::ids::Customer;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Reply, Verdict};
use purser_node::raft::Group;
use purser_node::storage::ShardView;

/// The stamp of a batch where none is asked for.
pub const STAMP: Time = Time(1_000_000_000);

/// A batch of one command, which creates a wallet under a key of the same name.
pub fn create_wallet(wallet: &str) -> Bytes {
    encode(wallet, STAMP, "")
}

/// The same, with so many bytes more.
pub fn create_wallet_padded(wallet: &str, padding: usize) -> Bytes {
    encode(wallet, STAMP, &"x".repeat(padding))
}

/// The same, stamped with a time.
pub fn create_wallet_at(wallet: &str, stamp: Time) -> Bytes {
    encode(wallet, stamp, "")
}

fn encode(wallet: &str, stamp: Time, actor: &str) -> Bytes {
    let mut batch = BatchEncoder::new();
    push(&mut batch, "ada", wallet, stamp, actor);
    Bytes::from(batch.finish(stamp))
}

fn push(batch: &mut BatchEncoder, customer: &str, wallet: &str, stamp: Time, actor: &str) {
    let header = Header {
        customer: Customer { namespace: "default", id: customer },
        key: wallet,
        valid_until: Time(stamp.0 + 1_000_000_000),
        retention: Span(86_400_000_000),
        actor,
    };
    let create = CreateWallet {
        wallet,
        asset: Asset { code: "credits", scale: 0 },
        draw_priority: 0,
        scope: ChargeScope::Any,
        burn_policy: BurnPolicy::Standard,
    };
    batch.push(&Command { header, operation: Operation::CreateWallet(create) });
}

/// One batch that creates many wallets.
pub fn create_wallets(numbers: std::ops::Range<usize>) -> Bytes {
    let mut batch = BatchEncoder::new();
    for number in numbers {
        // A customer may have so many wallets and no more.
        push(&mut batch, &format!("customer-{}", number / 100), &name(number), STAMP, "");
    }
    Bytes::from(batch.finish(STAMP))
}

/// Whether the one command of a batch was applied now (`false`) or before (`true`).
pub fn is_replay(answers: &[Answer]) -> bool {
    match answers {
        [answer] => match &answer.reply {
            Reply::Verdict { replayed, verdict: Verdict::Applied { .. } } => *replayed,
            other => panic!("not applied: {other:?}"),
        },
        other => panic!("not one answer: {other:?}"),
    }
}

/// Creates a wallet, or finds it there.
pub async fn was_replayed(group: &Group, wallet: &str) -> bool {
    is_replay(&group.propose(create_wallet(wallet)).await.expect("answers").answers)
}

pub fn name(number: usize) -> String {
    format!("wallet-{number:05}")
}

/// All rows of a view, in order.
pub fn rows(view: &ShardView) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut keep = |key: &[u8], row: &[u8]| {
        rows.push((key.to_vec(), row.to_vec()));
        true
    };
    view.rows(&mut keep).expect("readable");
    rows
}

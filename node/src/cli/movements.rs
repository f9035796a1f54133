//! `purser movements`: the ledger entries of a wallet.

use clap::Args;
use purser_proto::v1::{
    GetMovementRequest, GetMovementResponse, ListMovementsRequest, ListMovementsResponse, Movement,
    MovementStatus, MovementType, TrancheKind,
};

use super::answer::Answer;
use super::failure::Failure;
use super::page::{self, PageArgs};
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::{json, parse, receipt, times, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser movements --customer acme --wallet main
  purser movements --customer acme --wallet main --type consumed --from 2026-11-01 --until 2026-12-01
  purser movements --customer acme --wallet main --type refunded --type adjusted
  purser movements --customer acme --wallet main --reference request-77
  purser movements --customer acme --id mov_0001
  purser movements --customer acme --wallet main --oldest-first -o json | jq -c '.movements[]'";

/// Which movements.
#[derive(Debug, Args)]
pub struct MovementsArgs {
    /// Whose movements
    #[arg(long, value_name = "ID")]
    customer: String,
    /// The wallet
    #[arg(long, value_name = "ID", required_unless_present = "id")]
    wallet: Option<String>,
    /// Show this one movement in full
    #[arg(long, value_name = "MOVEMENT",
          conflicts_with_all = ["wallet", "types", "from", "until", "kinds", "reference", "operation"])]
    id: Option<String>,
    /// Only this type; may be repeated
    #[arg(long = "type", ignore_case = true, value_name = "TYPE",
          value_parser = words::read::<MovementType>(words::MOVEMENT_TYPES))]
    types: Vec<MovementType>,
    /// Booked at or after
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    from: Option<prost_types::Timestamp>,
    /// Booked before
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    until: Option<prost_types::Timestamp>,
    /// Only movements that touched a tranche of this kind; may be repeated
    #[arg(long = "kind", ignore_case = true, value_name = "KIND",
          value_parser = words::read::<TrancheKind>(words::TRANCHE_KINDS))]
    kinds: Vec<TrancheKind>,
    /// Only movements with this reference
    #[arg(long)]
    reference: Option<String>,
    /// Only movements of this operation
    #[arg(long, value_name = "OPERATION")]
    operation: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

impl MovementsArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self.id.clone() {
            Some(id) => self.get(session, id).await,
            None => self.list(session).await,
        }
    }

    async fn get(self, session: &Session, movement_id: String) -> Result<Answer, Failure> {
        let about = About::read(format!("show {movement_id} of {}", self.customer));
        let request = session.request(GetMovementRequest {
            namespace: session.namespace(),
            customer: self.customer,
            movement_id,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.get_movement(request)).await?;
        Ok(show_one(&response))
    }

    async fn list(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("list the movements of {}", self.customer));
        let request = session.request(ListMovementsRequest {
            namespace: session.namespace(),
            customer: self.customer,
            page: Some(self.page.request()),
            wallet: self.wallet.unwrap_or_default(),
            types: self.types.into_iter().map(i32::from).collect(),
            booked_from: self.from,
            booked_until: self.until,
            kinds: self.kinds.into_iter().map(i32::from).collect(),
            reference: self.reference.unwrap_or_default(),
            operation_id: self.operation.unwrap_or_default(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.list_movements(request)).await?;
        Ok(show_list(&response))
    }
}

pub(super) fn show_list(response: &ListMovementsResponse) -> Answer {
    const COLUMNS: [Column; 9] = [
        ("SEQ", Lean::Right),
        ("MOVEMENT", Lean::Left),
        ("BOOKED AT", Lean::Left),
        ("TYPE", Lean::Left),
        ("STATUS", Lean::Left),
        ("AMOUNT", Lean::Right),
        ("BALANCE", Lean::Right),
        ("CORRECTS", Lean::Left),
        ("REFERENCE", Lean::Left),
    ];
    let rows = response.movements.iter().map(|movement| {
        vec![
            movement.sequence.to_string(),
            movement.movement_id.clone(),
            times::or_none(movement.booked_at.as_ref()),
            words::show::<MovementType>(movement.r#type),
            words::show::<MovementStatus>(movement.status),
            movement.amount.clone(),
            movement.balance_after.clone(),
            table::or_none(&movement.corrects),
            table::or_none(&movement.reference),
        ]
    });
    let text = table::table(&COLUMNS, rows) + &page::hint(response.page.as_ref());
    Answer::new(text, json::shape(response))
}

fn show_one(response: &GetMovementResponse) -> Answer {
    let text = response.movement.as_ref().map(show_movement).unwrap_or_default();
    Answer::new(text, json::shape(response))
}

fn show_movement(movement: &Movement) -> String {
    let facts = table::facts([
        ("movement", movement.movement_id.clone()),
        ("operation", movement.operation_id.clone()),
        ("wallet", movement.wallet.clone()),
        ("customer", movement.customer.clone()),
        ("sequence", movement.sequence.to_string()),
        ("type", words::show::<MovementType>(movement.r#type)),
        ("status", words::show::<MovementStatus>(movement.status)),
        ("asset", receipt::asset(movement.asset.as_ref())),
        ("amount", movement.amount.clone()),
        ("balance before", movement.balance_before.clone()),
        ("balance after", movement.balance_after.clone()),
        ("hold", movement.hold_id.clone()),
        ("feature", movement.feature.clone()),
        ("reason", movement.reason_code.clone()),
        ("reference", movement.reference.clone()),
        ("corrects", movement.corrects.clone()),
        ("actor", movement.actor.clone()),
        ("key", movement.idempotency_key.clone()),
        ("booked at", times::or_none(movement.booked_at.as_ref())),
        ("effective at", times::or_none(movement.effective_at.as_ref())),
        ("metadata", metadata(movement)),
        ("hash", movement.hash.clone()),
        ("previous hash", movement.previous_hash.clone()),
    ]);
    format!("{facts}\n\n{}", receipt::draws(&movement.draws))
}

fn metadata(movement: &Movement) -> String {
    let pairs: Vec<_> = movement.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

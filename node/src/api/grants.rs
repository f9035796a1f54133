//! The life of a grant: made, confirmed, failed, voided.

use purser_ledger::amount::Amount;
use purser_ledger::command::{Command, ConfirmGrant, Expiry, Grant, Operation, TrancheSpec};
use purser_ledger::ids::{Customer, TrancheId};
use purser_ledger::query::{self, TrancheStatus, TrancheView};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::rows::tranche::TrancheRow;
use purser_ledger::time::Time;
use purser_ledger::verdict::Effect;
use purser_proto::v1;
use tonic::Status;

use super::refusal::{self, Pairs, malformed, refuse};
use super::shape::Shape;
use super::{Api, Full, Written, commands, of_another_sort, pairs_of_wallet, render};

impl Api {
    /// Grants tranches.
    pub async fn grant(&self, request: &v1::GrantRequest) -> Result<v1::GrantResponse, Status> {
        let command = commands::grant(request, self.clock.now()).map_err(malformed)?;
        let Operation::Grant(grant) = command.operation.clone() else { return Err(of_another_sort()) };
        let customer = command.header.customer;
        let written = self.write(command).await?;
        self.granted(customer, &grant, &written, Full)
    }

    /// Makes a pending tranche spendable. Spans are counted from its effective time, if that lies ahead:
    /// the tranche is looked at first.
    pub async fn confirm_grant(
        &self,
        request: &v1::ConfirmGrantRequest,
    ) -> Result<v1::ConfirmGrantResponse, Status> {
        let tranche = self.tranche_to_confirm(request).await?;
        let command =
            commands::confirm_grant(request, self.clock.now(), tranche.as_ref()).map_err(malformed)?;
        let Operation::ConfirmGrant(confirm) = command.operation.clone() else {
            return Err(of_another_sort());
        };
        let customer = command.header.customer;
        let written = self.write(command).await?;
        let tranche = Some(self.confirmed(customer, &confirm, &written)?);
        Ok(v1::ConfirmGrantResponse { receipt: written.receipt(Full), tranche })
    }

    /// Ends a pending tranche.
    pub async fn fail_grant(&self, request: &v1::FailGrantRequest) -> Result<v1::FailGrantResponse, Status> {
        let command = commands::fail_grant(request, self.clock.now()).map_err(malformed)?;
        let (receipt, amount) = self.ended(command).await?;
        Ok(v1::FailGrantResponse { receipt, amount })
    }

    /// Withdraws what is left of a tranche.
    pub async fn void_grant(&self, request: &v1::VoidGrantRequest) -> Result<v1::VoidGrantResponse, Status> {
        let command = commands::void_grant(request, self.clock.now()).map_err(malformed)?;
        let (receipt, amount) = self.ended(command).await?;
        Ok(v1::VoidGrantResponse { receipt, amount })
    }

    async fn ended(&self, command: Command<'_>) -> Result<(Option<v1::Receipt>, String), Status> {
        let written = self.write(command).await?;
        let amount = render::sum_of(&written.applied.effect, &[MovementKind::Voided]);
        Ok((written.receipt(Full), amount.ok_or_else(of_another_sort)?))
    }

    /// The tranche that a request is about, as it stands now; `None` where nothing is found under its
    /// name, which is for the ledger to say.
    async fn tranche_to_confirm(
        &self,
        request: &v1::ConfirmGrantRequest,
    ) -> Result<Option<TrancheRow>, Status> {
        let mut shape = Shape::new();
        let customer = shape.customer(&request.namespace, &request.customer);
        let Ok(customer) = shape.finish(customer) else { return Ok(None) };
        let Some(id) = TrancheId::parse(&request.tranche_id) else { return Ok(None) };
        let (_, view) = self.read(customer).await?;
        match query::granted(&view, customer, &request.wallet, &[id]) {
            Ok(rows) => Ok(rows.into_iter().next().flatten()),
            Err(query::ReadError::NotFound(_)) => Ok(None),
            Err(error) => Err(refusal::unread(error, &pairs_of_wallet(customer, &request.wallet))),
        }
    }

    /// The answer to a grant: its tranches as they stood after it, in the order of the request.
    pub(super) fn granted(
        &self,
        customer: Customer<'_>,
        grant: &Grant<'_>,
        written: &Written,
        detail: v1::ReceiptDetail,
    ) -> Result<v1::GrantResponse, Status> {
        let Effect::Posted { movements, balances, .. } = &written.applied.effect else {
            return Err(of_another_sort());
        };
        let scale = balances.first().map_or(0, |own| own.asset_scale);
        let drawn = movements.iter().flat_map(|own| own.draws.iter().map(|draw| (draw.tranche, own.status)));
        let mut ids: Vec<_> = drawn.collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        let tranches: Vec<_> = ids.iter().map(|(id, _)| *id).collect();
        let rows = self.rows_of(customer, grant.wallet, &tranches, written)?;
        let told = ids.into_iter().zip(rows).zip(&grant.tranches).map(|(((id, status), row), spec)| {
            render::tranche(grant.wallet, scale, &as_granted(id, row, status, spec))
        });
        Ok(v1::GrantResponse { receipt: written.receipt(detail), tranches: told.collect() })
    }

    /// A tranche as it stood after its confirmation.
    fn confirmed(
        &self,
        customer: Customer<'_>,
        confirm: &ConfirmGrant<'_>,
        written: &Written,
    ) -> Result<v1::Tranche, Status> {
        let Effect::Posted { movements, balances, .. } = &written.applied.effect else {
            return Err(of_another_sort());
        };
        let scale = balances.first().map_or(0, |own| own.asset_scale);
        let rows = self.rows_of(customer, confirm.wallet, &[confirm.tranche], written)?;
        let row = rows.into_iter().next().ok_or_else(of_another_sort)?;
        let expires_at = row.granted_until();
        let row = TrancheRow { expires_at, ..row };
        // Without a movement it waits for its effective time.
        let status = if movements.is_empty() { TrancheStatus::Scheduled } else { TrancheStatus::Active };
        Ok(render::tranche(confirm.wallet, scale, &untouched(confirm.tranche, row, status)))
    }

    /// Rows of tranches that a command wrote. Whoever answers has applied it: its own rows hold them, and
    /// no other replica needs to be asked.
    fn rows_of(
        &self,
        customer: Customer<'_>,
        wallet: &str,
        ids: &[TrancheId],
        written: &Written,
    ) -> Result<Vec<TrancheRow>, Status> {
        let missing = |what: &str| refuse("INTERNAL", what, Pairs::new());
        let shard = self.shards.get(&written.witness.shard);
        let shard = shard.ok_or_else(|| missing("an answer of a shard that is not here"))?;
        let rows = query::granted(shard.group().store(), customer, wallet, ids)
            .map_err(|error| refusal::unread(error, &pairs_of_wallet(customer, wallet)))?;
        let rows: Option<Vec<_>> = rows.into_iter().collect();
        rows.ok_or_else(|| missing("a granted tranche is missing"))
    }
}

/// A tranche as its grant left it, from a row that may tell of more by now.
fn as_granted(id: TrancheId, row: TrancheRow, status: MovementStatus, spec: &TrancheSpec<'_>) -> TrancheView {
    let (status, expires_at, lifetime) = match (spec.pending, status) {
        (false, MovementStatus::Pending) => (TrancheStatus::Scheduled, row.granted_until(), None),
        (false, MovementStatus::Posted) => (TrancheStatus::Active, row.granted_until(), None),
        // It may have been confirmed with another end since.
        (true, _) => match spec.expiry {
            Expiry::Never => (TrancheStatus::Pending, Time::NEVER, None),
            Expiry::At(end) => (TrancheStatus::Pending, end, None),
            Expiry::After { span, zone, .. } => {
                (TrancheStatus::Pending, Time::NEVER, Some((span.to_owned(), zone.to_owned())))
            }
        },
    };
    untouched(id, TrancheRow { expires_at, lifetime, ..row }, status)
}

/// A tranche of which nothing has been spent.
fn untouched(id: TrancheId, tranche: TrancheRow, status: TrancheStatus) -> TrancheView {
    let zero = Amount::ZERO;
    let available = if status == TrancheStatus::Active { tranche.amount } else { zero };
    TrancheView { id, tranche, status, available, held: zero, consumed: zero, expired: zero, voided: zero }
}

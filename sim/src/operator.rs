//! The operator: puts a new node in the place of one whose disk is lost, by the operation of the real one,
//! and asks again until it is taken. One at a time, as people are told to.

use std::sync::Arc;
use std::time::Duration;

use purser_node::api::Api;
use purser_node::cluster::NodeId;
use purser_node::simulation::mark;
use purser_proto::v1;
use tonic::Code;

use crate::blows::Struck;
use crate::dice::Dice;
use crate::seat::Seat;
use crate::setting::Setting;
use crate::timeline::Tone;
use crate::trace::now;

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(8);
/// The pause before the next one, and how often it is looked whether all is copied.
const PAUSE: Duration = Duration::from_millis(500);
/// In which time the place is given, whatever fails meanwhile: a storm is over long before.
const TAKEN_MAX: Duration = Duration::from_mins(10);
/// How long it may take until all is copied when nothing fails any more.
const COPIED_MAX: Duration = Duration::from_mins(2);

/// Gives the node that lives at a place now the place of the lost one that did before, at any member that
/// takes it, and tells it so.
pub async fn replace(setting: &Setting, nodes: &[Arc<Struck>], new: &Seat, lost: NodeId, dice: &mut Dice) {
    let with = new.place();
    let with = v1::NodePlace {
        node_id: with.id.to_string(),
        api_address: with.api_address,
        peer_address: with.peer_address,
    };
    let request = v1::ReplaceRequest { lost_node_id: lost.to_string(), with: Some(with) };
    let end = now() + TAKEN_MAX;
    while now() < end {
        let members: Vec<_> = nodes.iter().filter_map(|node| node.seat.node()).collect();
        if !members.is_empty() {
            let member = dice.pick(&members);
            if let Some(join) = attempt(setting, &member.api, &request).await {
                new.join(&join);
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    setting.referee.fail(format!("no member gives {} the lost node's place", new.name));
}

/// What the new node is to be told, if the place was given.
async fn attempt(setting: &Setting, member: &Api, request: &v1::ReplaceRequest) -> Option<v1::JoinRequest> {
    match tokio::time::timeout(ATTEMPT_MAX, member.replace(request)).await {
        Ok(Ok(given)) => given.join,
        Ok(Err(status)) if status.code() != Code::Unavailable => {
            setting.referee.fail(format!("the operator is refused: {status}"));
            None
        }
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Waits until every replica of a lost node is replaced; from then on one of another place may be lost.
pub async fn watch(setting: Arc<Setting>, nodes: Vec<Arc<Struck>>, new: Arc<Struck>, lost: NodeId) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let done = nodes.iter().filter_map(|node| node.seat.node()).any(|node| {
            let state = node.cluster().state();
            state.replaced.contains_key(&lost) && state.groups.iter().all(|group| group.coming.is_none())
        });
        if done {
            mark("lost node replaced");
            setting.trace.tell(new.seat.column, Tone::Good, format_args!("has taken the lost one's place"));
            setting.is_replaced();
            return;
        }
    }
}

/// Waits until no node is being replaced: to be called when nothing fails any more.
pub async fn wait_until_done(setting: &Setting) {
    let end = now() + COPIED_MAX;
    while setting.replaces() {
        if now() > end.max(setting.patience_ends()) {
            setting.referee.fail("nothing fails any more, and a lost node is not replaced".to_owned());
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

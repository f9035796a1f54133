//! Who leads which group: in one term of a group there is one leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use purser_node::cluster::NodeId;
use purser_node::log::GroupId;

use crate::blows::Struck;
use crate::setting::Setting;
use crate::timeline::Tone;

/// How often it is looked who leads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks who leads, for ever; two leaders of a group in one term end the run.
pub async fn watch(setting: Arc<Setting>, nodes: Vec<Arc<Struck>>) {
    let mut leaders: BTreeMap<(GroupId, u64), (NodeId, String)> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for seat in nodes.iter().flat_map(|node| node.seats()) {
            let Some(node) = seat.node() else { continue };
            let own = node.cluster().own();
            for (group, replica) in node.cluster().groups().iter() {
                let metrics = replica.metrics();
                if !metrics.leads {
                    continue;
                }
                let term = metrics.term;
                let (first, name) = leaders.entry((*group, term)).or_insert_with(|| {
                    let what = match group.0 {
                        0 => format!("leads meta, term {term}"),
                        shard => format!("leads shard {}, term {term}", shard - 1),
                    };
                    setting.trace.tell(seat.column, Tone::Good, format_args!("{what}"));
                    (own, seat.name.clone())
                });
                if *first != own {
                    let (group, other) = (group.0, &seat.name);
                    let what = format!("group {group} has two leaders in term {term}: {name} and {other}");
                    setting.referee.fail(what);
                }
            }
        }
    }
}

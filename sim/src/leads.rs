//! Who leads which group: in one term of a group there is one leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use purser_node::log::GroupId;

use crate::blows::Struck;
use crate::setting::Setting;
use crate::timeline::{Place, Tone};

/// How often it is looked who leads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks who leads, for ever; two leaders of a group in one term end the run.
pub async fn watch(setting: Arc<Setting>, nodes: Vec<Arc<Struck>>) {
    let mut leaders: BTreeMap<(GroupId, u64), usize> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (place, node) in nodes.iter().enumerate() {
            let Some(node) = node.seat.node() else { continue };
            for (group, replica) in node.cluster().groups().iter() {
                let metrics = replica.metrics();
                if !metrics.leads {
                    continue;
                }
                let term = metrics.term;
                let first = *leaders.entry((*group, term)).or_insert_with(|| {
                    let what = match group.0 {
                        0 => format!("leads meta, term {term}"),
                        shard => format!("leads shard {}, term {term}", shard - 1),
                    };
                    setting.trace.tell(Place::Node(place), Tone::Good, format_args!("{what}"));
                    place
                });
                if first != place {
                    let (one, other) = (first + 1, place + 1);
                    let what =
                        format!("group {} has two leaders in term {term}: n{one} and n{other}", group.0);
                    setting.referee.fail(what);
                }
            }
        }
    }
}

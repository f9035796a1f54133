//! The runtime that openraft gets in the simulation keeps what openraft asks of one.
#![cfg(madsim)]

use openraft_rt::testing::Suite;
use purser_node::raft::Runtime;

#[test]
fn our_runtime_keeps_what_openraft_asks_of_one() {
    Suite::<Runtime>::test_all();
}

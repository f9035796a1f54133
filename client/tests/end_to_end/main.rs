//! The client against a real node: in this process, on loopback, with its data in a folder that is
//! removed afterwards.

mod calls;
mod gateway;
mod node;

//! The client against nodes that do what a test tells them to: what a real cluster cannot be made to do
//! on demand.

mod batching;
mod mixed;
mod outcomes;
mod retries;
mod routing;
mod streams;
mod support;

//! What servers tell at their admin ports: whether they are ready, and counters of their logs in
//! Prometheus' text format.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::target::LogCounts;

/// The longest page of metrics that is read.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// How often a server is asked whether it is ready, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Waits until a server says that it is ready.
pub async fn wait_until_ready(url: &str) -> anyhow::Result<()> {
    let server = Scraper::new(Vec::new());
    let until = tokio::time::Instant::now() + WAIT_MAX;
    while let Err(error) = server.page(url).await {
        anyhow::ensure!(tokio::time::Instant::now() < until, "{url} does not become ready: {error}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Asks servers for their metrics.
#[derive(Clone)]
pub struct Scraper {
    http: Client<HttpConnector, Empty<Bytes>>,
    /// One of each server.
    urls: Vec<String>,
}

impl Scraper {
    /// Of the servers with these URLs of metrics.
    pub fn new(urls: Vec<String>) -> Scraper {
        Scraper { http: Client::builder(TokioExecutor::new()).build_http(), urls }
    }

    /// What all servers together have written to their logs; `None` where no server is known.
    pub async fn log(&self) -> anyhow::Result<Option<LogCounts>> {
        let mut sum = LogCounts::default();
        for url in &self.urls {
            let page = self.page(url).await.with_context(|| format!("no metrics from {url}"))?;
            let counter = |name: &str| {
                counter(&page, name).with_context(|| format!("no {name} in the metrics of {url}"))
            };
            sum.syncs += counter("purser_log_syncs_total")?;
            sum.entries += counter("purser_log_entries_total")?;
            sum.bytes += counter("purser_log_bytes_total")?;
        }
        Ok((!self.urls.is_empty()).then_some(sum))
    }

    async fn page(&self, url: &str) -> anyhow::Result<String> {
        let answer = self.http.get(url.parse()?).await?;
        anyhow::ensure!(answer.status().is_success(), "it says {}", answer.status());
        let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?;
        Ok(String::from_utf8(body.to_bytes().into())?)
    }
}

/// A counter's value, over all its labels; `None` where it is not there.
fn counter(page: &str, name: &str) -> Option<u64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // Another name may begin in the same way.
        let value = match rest.split_once('}') {
            Some((labels, value)) if labels.starts_with('{') => value,
            _ => rest.strip_prefix(' ')?,
        };
        value.split_whitespace().next()?.parse::<u64>().ok()
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_the_sum_over_its_labels_and_no_other_that_begins_alike() {
        let page = "# HELP purser_log_syncs_total Syncs of log segments\n\
                    # TYPE purser_log_syncs_total counter\n\
                    purser_log_syncs_total 41\n\n\
                    purser_log_syncs_total_ever 7\n\
                    purser_requests_total{method=\"Debit\",code=\"Ok\"} 10\n\
                    purser_requests_total{method=\"Grant\",code=\"Ok\"} 5 1700000000000\n";
        assert_eq!(counter(page, "purser_log_syncs_total"), Some(41));
        assert_eq!(counter(page, "purser_requests_total"), Some(15));
        assert_eq!(counter(page, "purser_requests"), None);
    }
}

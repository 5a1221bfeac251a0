//! Connections: accepted, bounded in number and in how long they may say nothing, and ended.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_layer::Layer;

use crate::app::stopped;
use crate::http::clients::{Client, Shares, is_in};

/// Open connections; more are closed at once.
const CONNECTIONS_MAX: usize = 4_096;
/// Those of one client. Many people may share an address, and a browser opens six.
const CONNECTIONS_OF_CLIENT_MAX: usize = 256;
/// How long a client may take for the head of a request, and be silent between two.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(15);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long a client may read nothing of what is sent to it.
const UNREAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections with HTTP/1.1 until `stopping`, and then lets them end.
///
/// HTTP/2 is left to proxies: they speak it with browsers, and have more use for it.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    proxies: &[IpNet],
    stopping: watch::Receiver<bool>,
) {
    let connections = Shares::new(CONNECTIONS_MAX, CONNECTIONS_OF_CLIENT_MAX);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stopping.clone()) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // all the world may come through a proxy
        let client = (!is_in(proxies, peer.ip())).then(|| Client::from(peer.ip()));
        let Ok(share) = connections.take(client) else { continue };
        let router = Extension(ConnectInfo::<SocketAddr>(peer)).layer(router.clone());
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(UNREAD_WAIT_MAX));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = http.serve_connection(stream, TowerToHyperService::new(router));
        let stopping = stopping.clone();
        open.spawn(async move {
            let _share = share;
            tokio::pin!(connection);
            // a client that breaks off is no error of ours
            tokio::select! {
                _ = connection.as_mut() => return,
                () = stopped(stopping) => connection.as_mut().graceful_shutdown(),
            }
            _ = connection.await;
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

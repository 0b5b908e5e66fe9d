//! Where objects come from: a parent, over QUIC or over HTTPS.

use crate::ReplicaError;
use crate::session::fetch_objects;
use bytes::Bytes;
use rootcast::id::ObjectId;
use rootcast::protocol::ObjectsRequest;
use rootcast_transport::Connection;
use std::future::Future;

/// A parent, to who asks it for objects.
pub(crate) trait Objects: Send {
    /// Its name, for the log.
    fn name(&self) -> String;

    /// Those of the objects that it has and that match their ids.
    fn objects(
        &mut self,
        request: ObjectsRequest,
    ) -> impl Future<Output = Result<Vec<(ObjectId, Bytes)>, ReplicaError>> + Send;
}

impl Objects for &Connection {
    fn name(&self) -> String {
        self.peer().to_string()
    }

    async fn objects(&mut self, request: ObjectsRequest) -> Result<Vec<(ObjectId, Bytes)>, ReplicaError> {
        fetch_objects(self, request).await
    }
}

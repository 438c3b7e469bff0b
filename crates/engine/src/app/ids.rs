//! Host ids of an instance whose configuration asks for more of them than it was made with.

use stapes_store::Transaction;

use crate::{
    Engine, Result, id_ranges,
    index::Stored,
    records::{self, Record},
    shape,
};

impl Engine {
    /// Gives an instance that is about to start a range of the size that it asks for by now. Its files keep their ids 0…,
    /// so only the next mount differs. A larger range than it needs is kept: what is inside may use it. Blocking.
    pub(crate) fn fit_ids(&self, instance: Stored<records::Instance>) -> Result<Stored<records::Instance>> {
        let has = instance.ids.map_or(0, |range| range.size);
        let wanted = shape::of(instance.kind).ids(&self.expanded(&instance));
        let Some(size) = wanted.filter(|size| *size > has) else { return Ok(instance) };
        let (range, reservation) = self.reserved.choose(|reserved| {
            let range = self.free_ids(size, reserved)?;
            Ok::<_, crate::Error>((range, id_ranges::blocks(range).map(records::id_range_claim).collect()))
        })?;
        let mut changed = (*instance.value).clone();
        changed.ids = Some(range);
        changed.config.insert("volatile.idmap.base".to_owned(), range.base.to_string());
        let mut transaction = Transaction::new().unchanged(changed.key(), instance.revision);
        for key in reservation.keys() {
            transaction = transaction.create(key, changed.id.to_string());
        }
        for block in instance.ids.into_iter().flat_map(id_ranges::blocks) {
            transaction = transaction.delete(records::id_range_claim(block));
        }
        self.store.commit(transaction.put(changed.key(), changed.to_bytes()))?;
        tracing::info!(instance = %changed.id, base = range.base, size, "it has a new id range");
        self.instance(&changed.project, &changed.name)
    }
}

"""The mitigator's access to Kafka: election, transactions, stored state.

Entry points: `transaction.TransactionalJournal` and `stored_state.read_state`.
"""

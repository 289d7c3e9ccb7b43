/* Protocol C of ../protocols.md: after an erasure's last receipt nothing of the person is left, nor arrives.
   tests/faults/test_models.py runs it.

   Each flag keeps one rule; leaving it out brings back the counterexample that made it a rule:
     FIRST        alerts is ordered only after the receipt of followups
     WRITE_AHEAD  followups deletes only what consent has written down: what leads to the person's alerts
     OUTBOX       its receipt waits until no row of its outbox, the relay's included, names the person
     EMPTY        the receipt of alerts waits until the queues of intake are known to be empty
     TOMBSTONE    alerts remembers whom it erased, and intake looks there before it writes a row
     LOCK         that look and the row are one step towards the erasure

   One person, whose lead was raised before the address was known: only the conversation leads from one to
   the other (`link`). An atomic step is a transaction, or what one process does without anybody seeing a
   part of it. Time is free: an intake consumer may hold a message for as long as it likes, because it is
   frozen or its database is away. Faults: the broker loses its disk, the relay dies after publishing. */
#ifndef F0
#define F0 2
#endif

#define NONE 0
#define WAITS 1
#define TAKEN 2                 /* by the relay, which is publishing it */

byte F = F0;
bit conversation=1;             /* in followups */
byte outbox=NONE;               /* lead.qualified */
byte queue;                     /* alerts.intake, and its .retry */
bit row, tombstone;             /* in alerts: the lead, in clear */
bit known;                      /* consent has written the link down, sealed */
bit order_f, link_f;            /* person.erased.followups, and whether it carries the link */
bit order_a, link_a;
bit found;                      /* erasure.subject */
bit told_f, link_t, told_a;     /* erasure.receipt on its way; without WRITE_AHEAD it carries the link */
bit done_f, done_a;             /* receipts that consent has recorded */
bit raised;

proctype Chat() { atomic{ conversation && !raised -> outbox=WAITS; raised=1 } }

proctype Relay() {
  do
  :: atomic{ outbox==WAITS -> outbox=TAKEN }
  :: atomic{ outbox==TAKEN -> queue++; outbox=NONE }
  :: atomic{ outbox==TAKEN && F>0 -> F--; queue++; outbox=WAITS }   /* died between */
  od }

#define AFTER_THE_RECEIPT (done_a)
proctype Intake() {             /* services/alerts/intake.py; any number of replicas hold messages */
  bit seen;
  do
  :: atomic{ queue>0 -> queue-- };
#if defined(TOMBSTONE) && defined(LOCK)
     atomic{ if :: !tombstone -> row=1 :: tombstone -> skip fi; assert(!(AFTER_THE_RECEIPT && row)) }
#elif defined(TOMBSTONE)
     atomic{ seen=tombstone };
     atomic{ if :: !seen -> row=1 :: seen -> skip fi; seen=0; assert(!(AFTER_THE_RECEIPT && row)) }
#else
     atomic{ row=1; assert(!(AFTER_THE_RECEIPT && row)) }
#endif
  od }

proctype Followups() {
  do
  :: atomic{ order_f ->
#ifdef WRITE_AHEAD
       if
       :: conversation && !link_f -> order_f=0; link_f=0; found=1
       :: else ->
#else
       if :: true ->
          if :: conversation -> link_t=1 :: else -> skip fi;
#endif
          conversation=0;
          if :: outbox==WAITS -> outbox=NONE :: else -> skip fi;
          if
#ifdef OUTBOX
          :: outbox==TAKEN -> skip      /* comes back from .retry */
          :: outbox==NONE -> order_f=0; link_f=0; told_f=1
#else
          :: true -> order_f=0; link_f=0; told_f=1
#endif
          fi
       fi }
  od }

proctype Alerts() {
  do
#ifdef EMPTY
  :: atomic{ order_a && queue==0 ->
#else
  :: atomic{ order_a ->
#endif
       order_a=0;
       if :: link_a -> row=0; tombstone=1 :: else -> skip fi;
       link_a=0; told_a=1 }
  od }

#define ASK_F order_f=1; link_f=known
#define ASK_A order_a=1; link_a=known
proctype Consent() {
  atomic{ ASK_F;
#ifndef FIRST
    ASK_A
#endif
  };
  do
  :: atomic{ found -> found=0; known=1; ASK_F }
  :: atomic{ told_f -> told_f=0; done_f=1; known=(known|link_t); link_t=0;
#ifdef FIRST
       if :: !done_a -> ASK_A :: else -> skip fi
#endif
     }
  :: atomic{ told_a -> told_a=0; done_a=1;
       if :: done_f && done_a ->
             assert(!conversation); assert(outbox==NONE); assert(queue==0); assert(!row)
          :: else -> skip fi }
  /* nothing was heard for an hour: ordered again */
  :: atomic{ !done_f && !order_f && !found && !told_f -> ASK_F }
  :: atomic{ done_f && !done_a && !order_a && !told_a -> ASK_A }
  od }

proctype Disk() {               /* orders and answers; what intake loses is an alert's affair (protocol A) */
  do :: atomic{ F>0 -> F--; order_f=0; link_f=0; order_a=0; link_a=0; found=0; told_f=0; link_t=0; told_a=0 } od }

init {
  atomic{ run Chat(); run Relay(); run Intake(); run Intake(); run Followups(); run Alerts(); run Consent();
    run Disk() };
end: timeout -> assert(done_f && done_a) }

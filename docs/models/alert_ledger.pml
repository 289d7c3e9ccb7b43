/* Protocol A of ../protocols.md: an alert to staff arrives at least once, or ends failed with `.dead` and an
   escalation (P1), and the ledger's equation holds in every state. tests/faults/test_models.py runs it.

   Each flag keeps one rule; leaving it out brings back the counterexample that made it a rule:
     FIX_CAS   a row moves only from `sending` and the attempt that the worker claimed
     FIX_PARK  a copy that finds a live lease, or whose worker was fenced off, is parked and not acked
     RECONCILE rows without a copy are published again
     ORDER=3   what a failure owes is one transaction, and the ack comes last. Instead of it:
               1 the ledger, .dead, the escalation; 2 .dead first; 4 the ack first
     MAX_AGE   with HELD: a row ends when it is too old, though its attempts are given back
     EACH_OWN  with BATCH: each row of a batch is claimed, or not, by its own state
     ALL_END   with BATCH: the batch is acked when the last of its rows is done, not the first
     OWN_COPY  with BATCH: a row that is parked gets a copy of its own, confirmed, before that; if that fails, the batch is
               rejected as a whole
   More to go wrong: DLXLOSS (a dead-lettered copy is lost), CLAIMLOSS (PostgreSQL crashes and has lost a claim, which
   was not on disk yet), BYHAND (discard; retry of what failed), HELD (the target
   refuses us: its queue waits for a trial, of which there are H, and the attempt is given back), FALLBACK (with
   NM=2: row 0, pending or failed, is handed to the fallback, whose row is 1).

   A row is one of alerts.delivery, a copy a message in alerts.<target> or its .retry, `outbox` what publishes
   it: intake, the outbox table, the reconciler. With BATCH (and NM=2) a copy may hold both rows. Its worker handles them at
   the same time: `pc`, `m` and `k` are one row's, `pc2` and `k2` the other's, and they change places at any moment. An atomic step is a transaction, or what one process does without
   anybody seeing a part of it. Time is free: leases and TTLs end whenever they like.
   Left out, for it only takes behaviour away: generations (a message of an older generation is acked, for a newer one is in
   the outbox), due times, breakers, group commit (each row of a statement moves as if alone). */
#ifndef F0
#define F0 2                       /* how much goes wrong, at most */
#endif
#ifndef NM
#define NM 1
#endif
#ifndef ORDER
#define ORDER 3
#endif
#define N 2                        /* retries after the first attempt */
#ifndef H
#define H 2                        /* trials of a target that refused us */
#endif
#if NM>1
#define EACH(X) X(0) X(1)
#else
#define EACH(X) X(0)
#endif

/* the row; 0: not yet accepted */
#define PENDING 1
#define SENDING 2
#define DELIVERED 3
#define FAILED 4
#define DISCARDED 5
#define TERMINAL(m) (row[m]>=DELIVERED)

/* where a worker is */
#define IDLE 0
#define CLAIM 1
#define SEND 2
#define TAKEN 3
#define REFUSED 4
#define EXHAUSTED 5
#define EXHAUSTED_2 6
#define EXHAUSTED_3 7
#define FENCED 8
#define ACK 9
#define PARK 10
#define BARRED 11
#define REJECTED 12

byte F = F0;
byte row[2], att[2], attempts[2]; bit lease[2];   /* att, the fence, goes back only by CLAIMLOSS */
bit outbox[2], obdead[2], dead[2], esc[2];
byte acc[2];                       /* how often the target has taken it, up to 3 */
byte ready[2], retry[2];           /* copies in the work queue and in .retry */
byte ready2, retry2;               /* of both rows */
byte busy, accepted, cD, cF, cX;   /* ledger_total: moved in the transaction that moves the row */
bit held; byte trials = H;

#ifdef FIX_CAS
#define MINE (row[m]==SENDING && att[m]==k)
#define MINE_TO_END (MINE || (k==0 && attempts[m]>N && (row[m]==PENDING || (row[m]==SENDING && !lease[m]))))
#else
#define MINE true
#define MINE_TO_END true
#endif
#ifdef FIX_PARK
#define LEASED PARK
#define NOT_MINE PARK
#else
#define LEASED ACK
#define NOT_MINE ACK
#endif
#define MOVE(state) row[m]=state; lease[m]=0

proctype Api(byte m) { atomic{ row[m]=PENDING; outbox[m]=1; accepted++ } }  /* then 202 */
proctype Relay(byte m) {           /* publishes, then deletes its row */
  do
  :: atomic{ outbox[m] -> ready[m]++; if :: outbox[m]=0 :: F>0 -> F-- fi }
  :: atomic{ obdead[m] -> dead[m]=1;  if :: obdead[m]=0 :: F>0 -> F-- fi }
#ifdef BATCH
  :: atomic{ m==0 && outbox[0] && outbox[1] -> ready2++; if :: outbox[0]=0; outbox[1]=0 :: F>0 -> F-- fi }
#endif
  od }

#define TAKE(i) :: atomic{ pc==IDLE && !held && ready[i]>0 -> ready[i]--; m=i; own=1; pc=CLAIM; busy++ }
#define PUT_DOWN own=0; both=0; whole=0; pc=IDLE; pc2=IDLE; m=0; k=0; k2=0; busy--
#define TURN m=1-m; k=k2; k2=0; pc=pc2; pc2=IDLE
#define RETURN if :: own -> ready[m]++ :: both -> ready2++ :: else -> skip fi
#ifdef ALL_END
#define DONE(last) if :: pc2!=IDLE -> TURN :: else -> last fi
#else
#define DONE(last) if :: pc2!=IDLE -> both=0; TURN :: else -> last fi
#endif
#define REJECT if :: own -> retry[m]++ :: both -> retry2++ :: else -> skip fi; PUT_DOWN
#define LAST if :: whole -> pc=REJECTED :: else -> PUT_DOWN fi
#define TAKE_BY_TARGET if :: acc[m]<3 -> acc[m]++ :: else -> skip fi

inline end_as_failed() {
  if
  :: MINE_TO_END -> MOVE(FAILED); cF++; esc[m]=1; obdead[m]=1
  :: else -> skip
  fi }

proctype W() {                            /* services/alerts/delivery/worker.py */
  byte pc=IDLE, m=0, k=0, pc2=IDLE, k2=0, other; bit own=0, both=0, whole=0;   /* k==0: nothing is claimed */
  do
  EACH(TAKE)
#ifdef BATCH
  :: atomic{ pc==IDLE && !held && ready2>0 -> ready2--; both=1; pc=CLAIM; pc2=CLAIM; busy++ }
  :: atomic{ pc2!=IDLE -> m=1-m; other=k; k=k2; k2=other; other=pc; pc=pc2; pc2=other; other=0 }
#ifndef EACH_OWN
  :: atomic{ pc==CLAIM && pc2==CLAIM && TERMINAL(m) -> PUT_DOWN }
#endif
#endif
  :: atomic{ pc==CLAIM ->                                        /* A2 */
       if
       :: TERMINAL(m) -> pc=ACK
       :: row[m]==SENDING && lease[m] -> pc=LEASED
       :: row[m]==PENDING || (row[m]==SENDING && !lease[m]) ->
          if
          :: attempts[m]>N -> pc=EXHAUSTED
          :: else -> attempts[m]++; att[m]++; k=att[m]; row[m]=SENDING; lease[m]=1; pc=SEND
          fi
       fi }
  :: atomic{ pc==SEND -> TAKE_BY_TARGET; pc=TAKEN }              /* A3 */
  :: atomic{ pc==SEND -> pc=REFUSED }
  :: atomic{ pc==SEND && F>0 -> F--; TAKE_BY_TARGET; pc=REFUSED }    /* taken, the answer lost */
  :: atomic{ pc==TAKEN ->                                        /* A4 */
       if
       :: MINE || (row[m]==PENDING && att[m]+1==k) -> MOVE(DELIVERED); att[m]=k; cD++; pc=ACK
       :: else -> pc=FENCED
       fi }
#ifdef HELD
  :: atomic{ pc==SEND -> held=1; pc=BARRED }
  :: atomic{ pc==BARRED ->
       if :: MINE -> MOVE(PENDING); attempts[m]--; pc=PARK :: else -> pc=FENCED fi }
#endif
  :: atomic{ pc==REFUSED && attempts[m]<=N ->
       if :: MINE -> MOVE(PENDING); pc=PARK :: else -> pc=FENCED fi }
  :: atomic{ pc==REFUSED && attempts[m]>N -> pc=EXHAUSTED }
#if ORDER==1
  :: atomic{ pc==EXHAUSTED ->
       if :: MINE_TO_END -> MOVE(FAILED); cF++; pc=EXHAUSTED_2 :: else -> pc=FENCED fi }
  :: atomic{ pc==EXHAUSTED_2 -> dead[m]=1; pc=EXHAUSTED_3 }
  :: atomic{ pc==EXHAUSTED_3 -> esc[m]=1; pc=ACK }
#elif ORDER==2
  :: atomic{ pc==EXHAUSTED -> dead[m]=1; pc=EXHAUSTED_2 }
  :: atomic{ pc==EXHAUSTED_2 -> end_as_failed(); pc=FENCED }
#elif ORDER==3
  :: atomic{ pc==EXHAUSTED -> end_as_failed(); pc=FENCED }       /* A5 */
#else
  :: atomic{ pc==EXHAUSTED -> own=0; pc=EXHAUSTED_2 }
  :: atomic{ pc==EXHAUSTED_2 -> end_as_failed(); pc=FENCED }
#endif
  :: atomic{ pc==FENCED -> if :: TERMINAL(m) -> pc=ACK :: else -> pc=NOT_MINE fi }
  :: atomic{ pc==ACK -> DONE(LAST) }
  :: atomic{ pc==PARK && !both -> if :: pc2!=IDLE -> TURN :: else -> REJECT fi }
#ifdef BATCH
#ifdef OWN_COPY
  :: atomic{ pc==PARK && both -> retry[m]++; pc=ACK }
  :: atomic{ pc==PARK && both && F>0 -> F--; whole=1; pc=ACK }   /* not confirmed */
#else
  :: atomic{ pc==PARK && both -> pc=ACK }
#endif
  :: atomic{ pc==REJECTED -> REJECT }
#endif
#ifdef DLXLOSS
  :: atomic{ ((pc==PARK && !both && pc2==IDLE) || pc==REJECTED) && F>0 -> F--; PUT_DOWN }
#endif
  /* killed, at any step; RabbitMQ hands the copy out again */
  :: atomic{ pc!=IDLE && F>0 -> F--; RETURN; PUT_DOWN }
  /* cut off from RabbitMQ while it lives on */
  :: atomic{ pc!=IDLE && (own || both) && F>0 -> F--; RETURN; own=0; both=0 }
  od }

#define CLAIM_LOST(i) :: atomic{ row[i]==SENDING && F>0 -> F--; row[i]=PENDING; lease[i]=0; att[i]--; attempts[i]-- }
#define LEASE_ENDS(i) :: atomic{ lease[i] -> lease[i]=0 }
#define COMES_BACK(i) :: atomic{ retry[i]>0 -> retry[i]--; ready[i]++; lease[i]=0 }   /* TTL >= lease */
#define IS_OPEN(i) (row[i]==PENDING || row[i]==SENDING)
#define SWEPT(i) \
  :: atomic{ IS_OPEN(i) && F>0 -> F--; outbox[i]=1 }   /* too early */ \
  :: atomic{ IS_OPEN(i) && !lease[i] && busy==0 && ready[i]+retry[i]+ready2+retry2+outbox[i]==0 -> outbox[i]=1 }
#define MOVED_BY_HAND(i) \
  :: atomic{ row[i]==PENDING && F>0 -> F--; row[i]=DISCARDED; cX++ } \
  :: atomic{ row[i]==FAILED && F>0 -> F--; row[i]=PENDING; attempts[i]=0; cF--; outbox[i]=1 }

#define TOO_OLD(i) \
  :: atomic{ held && IS_OPEN(i) && !lease[i] -> row[i]=FAILED; cF++; esc[i]=1; obdead[i]=1 }
#define FALLS_BACK \
  :: atomic{ (row[0]==PENDING || row[0]==FAILED) && row[1]==0 -> \
       if :: row[0]==FAILED -> cF-- :: else -> skip fi; \
       row[0]=DISCARDED; cX++; row[1]=PENDING; outbox[1]=1; accepted++ }

proctype Time() {                  /* and services/alerts/upkeep/reconcile.py */
  do
  EACH(LEASE_ENDS)
#ifdef CLAIMLOSS
  EACH(CLAIM_LOST)
#endif
  EACH(COMES_BACK)
#ifdef BATCH
  :: atomic{ retry2>0 -> retry2--; ready2++; lease[0]=0; lease[1]=0 }
#endif
#ifdef RECONCILE
  EACH(SWEPT)
#endif
#ifdef BYHAND
  EACH(MOVED_BY_HAND)
#endif
#ifdef HELD
  :: atomic{ held && trials>0 -> trials--; held=0 }              /* a trial, or by hand */
#ifdef MAX_AGE
  EACH(TOO_OLD)
#endif
#endif
#ifdef FALLBACK
  FALLS_BACK
#endif
  od }

#define HOLDS (accepted == cD+cF+cX+IS_OPEN(0)+IS_OPEN(1))
proctype Check() { atomic{ !HOLDS -> assert(false) } }           /* in every state */

#define TRUE_END(m) (row[m]==0 || row[m]==DISCARDED || (row[m]==DELIVERED && acc[m]>0) \
  || (row[m]==FAILED && dead[m] && esc[m]))
#define TRUE_DEAD(m) (!dead[m] || esc[m])                        /* nothing is in .dead that did not fail */
init {
  atomic{ run Api(0); run Relay(0);
#if NM>1
    run Relay(1);
#ifndef FALLBACK
    run Api(1);
#endif
#endif
    run W(); run W(); run Time(); run Check() };
end: timeout -> atomic{
  assert(TRUE_END(0) && TRUE_END(1));                            /* P1 */
  assert(TRUE_DEAD(0) && TRUE_DEAD(1));
  assert(HOLDS) } }

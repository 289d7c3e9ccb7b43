/* Protocol B of ../protocols.md: a marketing mail leaves at most once (P3), and never after the 200 of a
   withdrawal (P4). tests/faults/test_models.py runs it.

   Each flag keeps one rule; leaving it out brings back the counterexample that made it a rule:
     FIX_CAS    a row moves only from the state and the attempt that the worker claimed
     FIX_PID    a permit belongs to one attempt, not to the message
     FIX_UNK    an unknown outcome keeps its permit
     FIX_RETOB  a permit's return is an outbox row of the transaction that moves the row
     FIX_ACK    a fenced-off worker, or one that finds a live lease, parks its copy
     FIX_VER    a withdrawal that a newer grant has superseded gives no 200
     LOCK       consent is read and the permit written under one lock
     WAIT       who asks again waits again: "already withdrawn" is no shortcut to the 200
     DEADLINE   the sender looks at its clock before the dot
     BOUNDED    the assumption: no dot is on its way for as long as the quarantine
     RECONCILE  rows without a copy are published again
     WAIT_GRANT where no consent is recorded a message waits: the grant may be on its way
     AGE        a grant that is older than a withdrawal does not count
     VOID       a withdrawal voids the agreement that a mail asks to confirm
     STAR       a withdrawal of all writes a row that every permit reads, granted or not by then
     OWN        a permit is refused by the withdrawal of its own purpose and channel only
     ALL_WAITS  a withdrawal of all waits for the permits of all
     VER_STAR   a newer grant of any pair supersedes a withdrawal of all
     CAP_COUNTS a cap counts the permits of its time, returned or not
     CAP_LOCK   a permit under a cap is counted and written under a lock that excludes other permits
   Instead of BOUNDED: STRICT (no quarantine: only returned permits count), or FENCE (a proxy that all
   bytes to SMTP pass cuts one attempt; not built).
   More to go wrong: DLXLOSS (a dead-lettered copy is lost), REOPT (a new grant), LATE (the first grant
   comes late, perhaps after the withdrawal; else it was recorded before everything), OPTIN (the message is the mail
   that asks to confirm an agreement: the permit is for the row that waits, whatever the consent is by then).

   A step's window may close at any time (WINDOW), or its sequence goes on (NEXT). Both mean a second message, 1, which
   the scheduler hands over; that no two of them leave is kept by
     NOT_AFTER  no permit is asked for and no dot written once the window is over: the row ends BACK, by CAS, and the
                step goes back to the scheduler, which hands it over under a new id
     IN_DOUBT   a mail that may have left is in doubt, late or not
     UNKNOWN    the daily cap counts a hand-over of which the end is not known

   What stands for what: a row is one of alerts.delivery (WAITING is `pending`, SENT `delivered`, CANC
   `discarded`), a copy a message in alerts.<target> or its .retry, `outbox` that of whoever published
   it; perm is consent.permit, wd and ver consent_state. Followups' own side claims nothing: it hands
   over and hears the end. An atomic step is a transaction, or what one process does without anybody
   seeing a part of it. Time is free: a lease, a permit, a queue's TTL end whenever they like, so no
   figure of the configuration is assumed but through BOUNDED.

   PAIRS: two pairs of purpose and channel. The message is of one of them, and the person withdraws the first
   or all; pair 0 is `marketing`, of which a withdrawal of all always writes the row. CAP: two messages to
   somebody who wants at most one within a time; the second is deferred, and the step goes BACK as above.

   Left out, for it only takes behaviour away or is a person's word: generations (a message of an older generation is
   acked, for a newer one is in the outbox), due times, the 202 (a handler that gives up waiting; who
   asks again is here as a handler that died), erasure (comes after the 200), a doubt resolved by an operator. */
#ifndef F0
#define F0 2                    /* how much goes wrong, at most */
#endif
#ifndef NM
#define NM 2                    /* messages, to one person */
#endif
#ifndef K
#define K 3                     /* attempts of a message */
#endif
#define NX 6
#define IX(m,k) ((m)*K+(k))
#if NM>1
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define EACH_MESSAGE(X) X(0) X(1)
#define ALL(P) (P(0)&&P(1)&&P(2)&&P(3)&&P(4)&&P(5))
#else
#define EACH(X) X(0) X(1) X(2)
#define EACH_MESSAGE(X) X(0)
#define ALL(P) (P(0)&&P(1)&&P(2))
#endif

/* the row */
#define WAITING 0
#define CLAIMED 1
#define SENDING 2
#define SENT 4
#define DOUBT 5
#define CANC 6
#define FAILED 7
#define BACK 8                 /* at the scheduler */
#define TERMINAL(m) (row[m]>=SENT)

/* the permit, after none */
#define OPEN 1
#define RET 2
#define OLD 3                   /* its time is over: no dot is begun, a duplicate hears `closed`; still out */
#define EXP 4                   /* the quarantine is over: counts as returned */

/* where a worker is */
#define IDLE 0
#define CLAIM 1
#define ASK 2
#define ASKED 3
#define GRANTED 4
#define BEFORE_DOT 5
#define AT_DOT 6
#define DOT_OUT 7
#define ACCEPTED 8
#define RETURN_ACK 9
#define ACK 10
#define NO_PERMIT 11
#define DEFERRED 17
#define UNSENT 12
#define PARK 13
#define UNSURE 14
#define DENIED 15
#define RETURN_PARK 16

byte F = F0;
bit outbox[2];
byte ready[2], retry[2];        /* copies in the work queue and in .retry, in no order */
byte row[2], att[2]; bit lease[2];
byte perm[NX]; bit reqq[NX]; byte ans[NX]; bit retq[NX];
bit net[NX]; byte rsp[NX];      /* the dot, and SMTP's answer, on their way */
bit here[NX];                   /* a worker waits for an answer to this attempt; else it is dropped */
bit crit[NX];                   /* between the look at the clock and SMTP's having the dot */
byte acc[2];                    /* mails that SMTP has taken */
bit wd[2], done200[2], gotall; byte ver[2];        /* by pair */
bit none[2];                    /* no consent is recorded */
bit star[2]; byte allver;       /* the row of all, unless a newer grant follows; its version */
bit said[2];                    /* withdrawn by the person, at least once */
byte pair;                      /* of the messages */
bit asked;                      /* an agreement waits for its confirmation */
bit closed[2];                  /* the window of the message */
byte busy;                      /* workers that have the message */

#ifdef FIX_PID
#define PX(m,k) IX(m,k)
#define QUIET(i) (crit[i]==0)
#else
#define PX(m,k) IX(m,0)
#define QUIET(i) (crit[((i)/K)*K]+crit[((i)/K)*K+1]+crit[((i)/K)*K+2]==0)
#endif
#ifdef NOT_AFTER
#define TOO_LATE(m,i) (OVER(i) || closed[m])
#else
#define TOO_LATE(m,i) OVER(i)
#endif
#define OVER(i) (perm[i]==OLD || perm[i]==EXP)
#define FREE(i) (perm[i]!=OPEN && perm[i]!=OLD)
#ifdef FENCE
bit fen[NX];
#define SETTLED(i) (FREE(i) && (perm[i]!=EXP || (fen[i] && !net[i])))
#elif defined(STRICT)
#define SETTLED(i) (FREE(i) && perm[i]!=EXP)
#else
#define SETTLED(i) FREE(i)
#endif

#define END(state) row[m]=state; lease[m]=0
#ifdef FIX_CAS
#define MINE(st) (row[m]==(st) && att[m]==k+1)
#else
#define MINE(st) true
#endif
#ifdef FIX_PID                  /* whoever takes over voids the predecessor's permit */
#define VOID_PREDECESSOR if :: row[m]==CLAIMED -> retq[PX(m,att[m]-1)]=1 :: else -> skip fi
#else
#define VOID_PREDECESSOR skip
#endif
#ifdef FIX_RETOB
#define THEN_ACK retq[PX(m,k)]=1; pc=ACK
#define THEN_PARK retq[PX(m,k)]=1; pc=PARK
#else
#define THEN_ACK pc=RETURN_ACK
#define THEN_PARK pc=RETURN_PARK
#endif
#ifdef FIX_ACK
#define FENCED THEN_PARK
#define LEASED PARK
#else
#define FENCED THEN_ACK
#define LEASED ACK
#endif

proctype Relay(byte m) {        /* publishes, then deletes its row */
  do
  :: atomic{ outbox[m] -> ready[m]++; if :: outbox[m]=0 :: F>0 -> F-- /* died between */ fi }
  :: !outbox[m] -> break
  od }

#define TAKE(i) :: atomic{ pc==IDLE && ready[i]>0 -> ready[i]--; m=i; own=1; pc=CLAIM; busy++ }
#define LEAVE here[IX(m,k)]=0; ans[IX(m,k)]=0; rsp[IX(m,k)]=0
#define PUT_DOWN own=0; pc=IDLE; m=0; k=0; busy--

proctype W() {                  /* services/alerts/delivery/at_most_once.py */
  byte pc=IDLE, m=0, k=0; bit own=0;
  do
  EACH_MESSAGE(TAKE)
  :: atomic{ pc==CLAIM ->                               /* B1 */
      if
      :: TERMINAL(m) -> pc=ACK
      :: row[m]==SENDING && !lease[m] -> END(DOUBT); pc=ACK
      :: (row[m]==SENDING || row[m]==CLAIMED) && lease[m] -> pc=LEASED
      :: row[m]==WAITING || (row[m]==CLAIMED && !lease[m]) ->
         VOID_PREDECESSOR;
         if
         :: att[m]==K -> END(FAILED); pc=ACK
         :: else -> k=att[m]; att[m]++; lease[m]=1; row[m]=CLAIMED; pc=ASK
         fi
      fi }
#ifdef NOT_AFTER
  :: atomic{ pc==ASK && closed[m] ->
       if :: MINE(CLAIMED) -> END(BACK); THEN_ACK
          :: else -> FENCED fi }
#endif
  :: atomic{ pc==ASK -> reqq[IX(m,k)]=1; here[IX(m,k)]=1; pc=ASKED }     /* B2 */
  :: atomic{ pc==ASKED && ans[IX(m,k)]==1 -> LEAVE; pc=GRANTED }
  :: atomic{ pc==ASKED && ans[IX(m,k)]==2 -> LEAVE; pc=DENIED }
  :: atomic{ pc==ASKED && ans[IX(m,k)]==3 -> LEAVE; pc=NO_PERMIT }
#ifdef CAP
  :: atomic{ pc==ASKED && ans[IX(m,k)]==4 -> LEAVE; pc=DEFERRED }
  :: atomic{ pc==DEFERRED ->
       if :: MINE(CLAIMED) -> END(BACK); THEN_ACK
          :: else -> FENCED fi }
#endif
  :: atomic{ pc==ASKED && F>0 -> F--; LEAVE; pc=NO_PERMIT }   /* no answer in time */
  :: atomic{ pc==GRANTED ->                             /* B4 */
       if :: MINE(CLAIMED) -> row[m]=SENDING; lease[m]=1; pc=BEFORE_DOT
          :: else -> FENCED fi }
  :: atomic{ pc==DENIED ->
       if :: MINE(CLAIMED) -> assert(said[pair]);  /* nobody is silenced who has not withdrawn */
             END(CANC); THEN_ACK
          :: else -> FENCED fi }
  :: atomic{ pc==NO_PERMIT ->                           /* returned whatever the CAS says */
       if :: MINE(CLAIMED) -> END(WAITING); THEN_PARK
          :: MINE(CLAIMED) -> END(CANC); THEN_ACK     /* waited for too long */
          :: else -> FENCED fi }
  :: atomic{ pc==BEFORE_DOT ->                          /* B5; the clock does not tell of a return */
#ifdef DEADLINE
       if :: !TOO_LATE(m,PX(m,k)) -> assert(!closed[m]); crit[IX(m,k)]=1; pc=AT_DOT
          :: TOO_LATE(m,PX(m,k)) -> pc=UNSENT fi
#else
       crit[IX(m,k)]=1; pc=AT_DOT
#endif
     }
#ifdef FENCE
  :: atomic{ pc==AT_DOT && fen[IX(m,k)] -> crit[IX(m,k)]=0; pc=UNSENT }
  :: atomic{ pc==AT_DOT && !fen[IX(m,k)] -> net[IX(m,k)]=1; here[IX(m,k)]=1; pc=DOT_OUT }
#else
  :: atomic{ pc==AT_DOT -> net[IX(m,k)]=1; here[IX(m,k)]=1; pc=DOT_OUT }
#endif
  :: atomic{ pc==AT_DOT && F>0 -> F--; crit[IX(m,k)]=0; pc=UNSENT }   /* refused, cut, reset */
  :: atomic{ pc==DOT_OUT && rsp[IX(m,k)]==1 ->
       LEAVE;
       if :: OVER(PX(m,k)) -> pc=UNSURE                /* overrun */
          :: else -> pc=ACCEPTED fi }
  :: atomic{ pc==DOT_OUT && rsp[IX(m,k)]==2 -> LEAVE; pc=UNSENT }
  :: atomic{ pc==DOT_OUT && F>0 -> F--; LEAVE; pc=UNSURE }   /* no answer in time */
  :: atomic{ pc==DOT_OUT && !net[IX(m,k)] && !rsp[IX(m,k)] -> LEAVE; pc=UNSURE }   /* it was lost */
  :: atomic{ pc==ACCEPTED ->                            /* B6 */
       if :: MINE(SENDING) || MINE(DOUBT) -> END(SENT); THEN_ACK
          :: else -> pc=PARK fi }
  :: atomic{ pc==UNSENT ->                              /* certainly; the reconciler may have seen a doubt */
       if :: MINE(SENDING) -> END(WAITING); THEN_PARK
          :: MINE(SENDING) -> END(FAILED); THEN_ACK   /* refused for good */
          :: else -> pc=PARK fi }
  :: atomic{ pc==UNSURE ->
       if :: MINE(SENDING) -> END(DOUBT)
#ifndef IN_DOUBT
          :: MINE(SENDING) && closed[m] -> END(BACK)
#endif
          :: else -> skip fi;
#ifdef FIX_UNK
       pc=ACK
#else
       pc=RETURN_ACK
#endif
     }
  :: atomic{ pc==RETURN_ACK -> retq[PX(m,k)]=1; pc=ACK }
  :: atomic{ pc==RETURN_ACK && F>0 -> F--; pc=ACK }     /* the return is lost */
  :: atomic{ pc==RETURN_PARK -> retq[PX(m,k)]=1; pc=PARK }
  :: atomic{ pc==RETURN_PARK && F>0 -> F--; pc=PARK }
  :: atomic{ pc==ACK -> PUT_DOWN }
  :: atomic{ pc==PARK -> if :: own -> retry[m]++ :: else -> skip fi; PUT_DOWN }
#ifdef DLXLOSS
  :: atomic{ pc==PARK && F>0 -> F--; PUT_DOWN }
#endif
  /* killed, at any step; RabbitMQ hands the copy out again */
  :: atomic{ pc!=IDLE && F>0 -> F--; if :: own -> ready[m]++ :: else -> skip fi;
       if :: pc==AT_DOT -> crit[IX(m,k)]=0 :: else -> skip fi;
       if :: pc==ASKED || pc==DOT_OUT -> LEAVE :: else -> skip fi; PUT_DOWN }
  /* cut off from RabbitMQ while it lives on: a stall, a partition */
  :: atomic{ pc!=IDLE && own && F>0 -> F--; own=0; ready[m]++ }
  od }

#ifdef BOUNDED
#define MAY_EXPIRE(i) (perm[i]==OLD && QUIET(i))
#else
#define MAY_EXPIRE(i) (perm[i]==OLD)
#endif
#define AGES(i) :: atomic{ perm[i]==OPEN -> perm[i]=OLD } :: atomic{ MAY_EXPIRE(i) -> perm[i]=EXP }
#define LEASE_ENDS(i) :: atomic{ lease[i] -> lease[i]=0 }
#define COMES_BACK(i) :: atomic{ retry[i]>0 -> retry[i]--; ready[i]++; lease[i]=0 }   /* TTL >= lease */
#define CLOSES(i) :: atomic{ !closed[i] && row[i]<SENT -> closed[i]=1 }
#define WITHOUT_SENDER(i) (row[i]==WAITING || row[i]==CLAIMED)
#define SWEPT(i) \
  :: atomic{ row[i]==SENDING && !lease[i] -> row[i]=DOUBT } \
  :: atomic{ WITHOUT_SENDER(i) && F>0 -> F--; ready[i]++ }   /* too early */ \
  :: atomic{ WITHOUT_SENDER(i) && busy==0 && ready[i]+retry[i]+outbox[i]==0 && !lease[i] -> ready[i]++ }

proctype Time() {               /* and the reconciler, services/alerts/upkeep/reconcile.py */
  do
  EACH_MESSAGE(LEASE_ENDS)
  EACH_MESSAGE(COMES_BACK)
#ifdef WINDOW
  EACH_MESSAGE(CLOSES)
#endif
  EACH(AGES)
#ifdef RECONCILE
  EACH_MESSAGE(SWEPT)
#endif
  od }

#define SAY(i,what) ans[i]=(here[i] -> what : 0)
#ifdef OPTIN
#define REFUSED_TO !asked
#else
#ifdef OWN
#define REFUSED_TO (wd[pair] || star[pair])
#else
#define REFUSED_TO (wd[0] || wd[1] || star[pair])
#endif
#endif
#ifdef CAP_COUNTS
#define COUNTS(i) (perm[i]!=0)
#else
#define COUNTS(i) (perm[i]==OPEN)
#endif
#ifdef CAP
#define OVER_CAP(i) (COUNTS(IX(1-(i)/K,0)) || COUNTS(IX(1-(i)/K,1)))
#else
#define OVER_CAP(i) false
#endif
#define MAY(i) (!(REFUSED_TO) && !none[pair] && !OVER_CAP(i))
inline answer(i,p) {            /* B3; services/consent/permits.py */
  if
  :: REFUSED_TO -> SAY(i,2)
#ifdef WAIT_GRANT
  :: !(REFUSED_TO) && none[pair] -> SAY(i,3)
#else
  :: !(REFUSED_TO) && none[pair] -> SAY(i,2)
#endif
  :: !(REFUSED_TO) && !none[pair] && OVER_CAP(i) -> SAY(i,4)
#ifdef FIX_PID
  :: MAY(i) && perm[p]==0 -> perm[p]=OPEN; SAY(i,1)
  :: MAY(i) && perm[p]==OPEN -> SAY(i,1)
  :: MAY(i) && perm[p]>OPEN -> SAY(i,3)
#else
  :: MAY(i) -> perm[p]=OPEN; SAY(i,1)
#endif
  fi }

#if defined(CAP) && !defined(CAP_LOCK)    /* counts, then inserts the permit: FOR SHARE lets two do so */
#define REQUEST(x) \
  :: atomic{ reqq[x] && !count[x] && !(REFUSED_TO) && !none[pair] && !OVER_CAP(x) -> count[x]=1 } \
  :: atomic{ reqq[x] && count[x] -> count[x]=0; reqq[x]=0; \
     if :: perm[x]==0 && !(REFUSED_TO) -> perm[x]=OPEN; SAY(x,1) :: else -> SAY(x,3) fi } \
  :: atomic{ reqq[x] && !count[x] && (REFUSED_TO || none[pair] || OVER_CAP(x)) -> answer(x,PX((x)/K,(x)%K)); reqq[x]=0 }
bit count[NX];
#elif defined(LOCK)
#define REQUEST(x) :: atomic{ reqq[x] -> answer(x,PX((x)/K,(x)%K)); if :: reqq[x]=0 :: F>0 -> F-- fi }
#else                           /* reads consent, then inserts the permit */
#define REQUEST(x) :: atomic{ !s && reqq[x] -> if :: !wd[pair] -> i=x; s=1 :: wd[pair] -> SAY(x,2); reqq[x]=0 fi }
#endif
#define RETURN(x) :: atomic{ retq[x] -> retq[x]=0; perm[x]=RET }   /* also before its request */
proctype Consent() {
  byte i; bit s=0;
  do
  EACH(REQUEST)
#ifndef LOCK
  :: atomic{ s -> perm[PX(i/K,i%K)]=OPEN; SAY(i,1); reqq[i]=0; s=0; i=0 }
#endif
  EACH(RETURN)
  od }

#if defined(WINDOW) || defined(NEXT) || defined(CAP)
#define ONE_OF_BOTH assert(acc[0]+acc[1]<=1)    /* the step once; the next one not on the same day */
#else
#define ONE_OF_BOTH skip
#endif
#if defined(WINDOW) || defined(NEXT)
#ifdef WINDOW
#define HANDS_OVER (row[0]==BACK)
#elif defined(UNKNOWN)
#define HANDS_OVER (row[0]==CANC || row[0]==FAILED)
#else
#define HANDS_OVER true
#endif
proctype Scheduler() { atomic{ HANDS_OVER -> row[1]=WAITING; outbox[1]=1; run Relay(1) } }
#endif

#define TAKEN(i) :: atomic{ net[i] -> net[i]=0; crit[i]=0; acc[(i)/K]++; \
  assert(acc[(i)/K]<=1);        /* P3 */ \
  ONE_OF_BOTH; \
  assert(!done200[pair]);       /* P4 */ \
  if :: rsp[i]=here[i] :: F>0 -> F-- /* the answer is lost */ fi }
#define REFUSED(i) :: atomic{ net[i] && F>0 -> F--; net[i]=0; crit[i]=0; rsp[i]=2*here[i] }
proctype Smtp() {
  do
  EACH(TAKEN)
  EACH(REFUSED)
  od }

#ifdef VER_STAR
#define AS_WRITTEN (ver[0]==v && (!all || (ver[1]==v1 && allver==va)))
#else
#define AS_WRITTEN (ver[0]==v)
#endif
#ifdef ALL_WAITS
#define MINE_TO_WAIT_FOR (all || pair==0)
#else
#define MINE_TO_WAIT_FOR (pair==0)
#endif
#define RETURNED (!MINE_TO_WAIT_FOR || ALL(SETTLED))
#define DONE done200[0]=1; done200[1]=all
#define CUT(i) :: atomic{ perm[i]==EXP && !fen[i] -> fen[i]=1 }
proctype Person() {             /* B7; services/consent/recovery/withdrawals.py */
  byte v, v1, va; bit all;
#ifdef PAIRS
  if :: all=1 :: skip fi;
#endif
again:
  atomic{ if :: !wd[0] -> wd[0]=1; ver[0]++ :: else -> skip fi; said[0]=1;
    if :: all -> said[1]=1; if :: !wd[1] && !none[1] -> wd[1]=1; ver[1]++ :: else -> skip fi;
#ifdef STAR
          star[0]=1; star[1]=1
#endif
       :: else -> skip fi;
    v=ver[0]; v1=ver[1]; va=allver;
#ifdef VOID
    asked=0
#endif
  }
  do
#ifdef FIX_VER
  :: atomic{ !AS_WRITTEN -> break }  /* 409 */
  :: atomic{ RETURNED && AS_WRITTEN -> DONE; break }
#else
  :: atomic{ RETURNED -> DONE; break }
#endif
#ifdef FENCE
  EACH(CUT)
#endif
  :: atomic{ F>0 -> F-- };      /* consent is killed, or answers 202: asked again */
#ifdef WAIT
     goto again
#else
     atomic{ if :: wd[0] -> DONE :: else -> skip fi }; break
#endif
  od;
  gotall=1 }

#ifdef LATE
#ifdef AGE
proctype LateGrant() { atomic{ if :: ver[pair]==0 -> none[pair]=0 :: else -> skip fi } }
#else
proctype LateGrant() { atomic{ none[pair]=0; if :: wd[pair] -> wd[pair]=0; ver[pair]++ :: else -> skip fi } }
#endif
#endif
#ifdef REOPT
proctype Grant() { atomic{ (wd[pair] || star[pair]) -> wd[pair]=0; star[pair]=0; none[pair]=0; ver[pair]++;
  allver++; done200[pair]=0 } }
#endif

#define NOT_LOST(m) (TERMINAL(m))
#define TRUE_END(m) ((row[m]!=SENT || acc[m]==1) && (!(row[m]==CANC || row[m]==FAILED || row[m]==BACK) || acc[m]==0))
init {
  atomic{ outbox[0]=1; run Relay(0);
#ifdef PAIRS
    if :: pair=1 :: skip fi;
#endif
#if defined(WINDOW) || defined(NEXT)
    row[1]=CANC; run Scheduler();
#elif NM>1
    outbox[1]=1; run Relay(1);
#else
    row[1]=CANC;
#endif
    run W(); run W(); run Time(); run Consent(); run Smtp(); run Person();
#ifdef REOPT
    run Grant();
#endif
#ifdef LATE
    none[0]=1; none[1]=1; run LateGrant();
#endif
#ifdef OPTIN
    asked=1; if :: wd[0]=1; ver[0]=1; said[0]=1 /* asked again after an earlier withdrawal */ :: skip fi;
#endif
  };
end: timeout ->
  atomic{
  assert(NOT_LOST(0) && NOT_LOST(1));
  assert(TRUE_END(0) && TRUE_END(1));
#ifdef STRICT
  assert(gotall || row[0]==DOUBT || row[1]==DOUBT); /* a doubt alone holds the 200 back */
#else
  assert(gotall);               /* a withdrawal is answered */
#endif
  skip
  } }

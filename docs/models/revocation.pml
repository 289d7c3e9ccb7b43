/* C2: a key that was revoked with a 200 opens nothing.  Two gateways, one console, one key; crashes of each,
   restarts, orderly ends and a restored backup, of these at most F0 that nobody wanted.  Version 0 has the
   key, version 1 has not.  tests/faults/test_models.py runs it, each rule left out (-DNO_<rule>), too.

   FIRST     a gateway asks a console that runs before it serves; without one it serves with its file
   NOTED     the console notes who asks, and commits, before it reads the version that it answers
   MEMORY    a version is confirmed only when the process goes by it,
   FILE      and only when its file has it
   NEWER     a gateway never goes back: a console restored from a backup has an older version
   LAST      a gateway says goodbye after its last request
   INSTANCE  two processes of one name are two entries on the list
   AGE       nobody counts as unseen for a time in which no console ran
   YOUNG     a console answers no revocation before every process had the time to ask it again
   AWAY      assumed: a gateway that did not serve or ask when the 200 was given, and whose file has the key, meets a
             console that knows of the revocation before it serves (or KEYS_DENIED names the key)
   Assumed by construction: who is unseen for 10 minutes while a console runs serves nobody; a gateway that
   starts reaches a console that runs.

   One step is a transaction of the console, or what one gateway does without anybody seeing a part of it. Time is
   free: but for the assumptions, everything may take as long as it likes. */
#ifndef F0
#define F0 3
#endif
#define DOWN 0
#define STARTING 1
#define SERVING 2
#define LEAVING 3
byte F=F0;
byte st[2], mem[2], file[2], conf[2];       /* what each gateway goes by, keeps, and says that it has */
byte ask[2], sent[2], got[2];               /* its call: 1 sent, 2 half handled, 3 answered */
bit row[2], again[2], away[2]; byte has[2]; /* the console's list; who has asked since it started */
bit up=1, revoked, done200; byte version;
#ifdef NO_INSTANCE
#define R(g) 0
#else
#define R(g) g
#endif
#define NOTE(g) row[R(g)]=1; has[R(g)]=sent[g]; again[g]=1
#define ALIVE(g) (st[g]!=DOWN)
#ifdef NO_YOUNG
#define SETTLED(g) 1
#else
#define SETTLED(g) (st[g]<SERVING || again[g])
#endif
#define CONFIRMED(g) (!row[g] || has[g]==1)
#ifdef NO_AWAY
#define MAY_SERVE(g) 1
#else
#define MAY_SERVE(g) (!(away[g] && mem[g]==0))
#endif

#define BEGIN(g) st[g]=(st[g]==STARTING && MAY_SERVE(g) -> SERVING : st[g])

proctype Gateway(byte g) {
  do
  :: atomic{ st[g]==DOWN -> mem[g]=file[g]; conf[g]=file[g]; ask[g]=0; st[g]=STARTING }
#ifdef NO_FIRST
  :: atomic{ st[g]==STARTING && MAY_SERVE(g) -> st[g]=SERVING }
#else
  :: atomic{ st[g]==STARTING && !up && ask[g]==0 && MAY_SERVE(g) -> st[g]=SERVING }
#endif
  /* a request that begins now */
  :: atomic{ st[g]>=SERVING -> assert(!(done200 && mem[g]==0)) }
  /* its call */
  :: atomic{ ALIVE(g) && up && ask[g]==0 -> sent[g]=conf[g]; ask[g]=1 }
  :: atomic{ ask[g]==3 ->
       ask[g]=0;
       if
#ifdef NO_NEWER
       :: got[g]!=mem[g]
#else
       :: got[g]>mem[g]
#endif
          -> ask[g]=4
       :: else -> BEGIN(g)
       fi }
#ifdef NO_MEMORY
  :: atomic{ ask[g]==4 -> file[g]=got[g]; ask[g]=5 }
  :: atomic{ ask[g]==5 -> conf[g]=got[g]; ask[g]=0; sent[g]=conf[g];
       if :: up -> NOTE(g) :: else fi; ask[g]=6 }
  :: atomic{ ask[g]==6 -> mem[g]=got[g]; ask[g]=0; BEGIN(g) }
#else
  :: atomic{ ask[g]==4 -> mem[g]=got[g]; ask[g]=5 }
#ifdef NO_FILE
  :: atomic{ ask[g]==5 -> conf[g]=got[g]; sent[g]=conf[g];
       if :: up -> NOTE(g) :: else fi; ask[g]=6; BEGIN(g) }
  :: atomic{ ask[g]==6 -> file[g]=got[g]; ask[g]=0 }
#else
  :: atomic{ ask[g]==5 -> file[g]=got[g]; conf[g]=got[g]; ask[g]=0;
       BEGIN(g) }
#endif
#endif
  /* its ends */
  :: atomic{ ALIVE(g) && F>0 -> F--; st[g]=DOWN; ask[g]=0 }
#ifdef NO_LAST
  :: atomic{ st[g]==SERVING && up -> row[R(g)]=0; st[g]=LEAVING }
  :: atomic{ st[g]==LEAVING -> st[g]=DOWN; ask[g]=0 }
#else
  :: atomic{ st[g]==SERVING -> st[g]=LEAVING }
  :: atomic{ st[g]==LEAVING && up -> st[g]=DOWN; ask[g]=0; row[R(g)]=0 }
  :: atomic{ st[g]==LEAVING && !up -> st[g]=DOWN; ask[g]=0 }
#endif
  od
}

#define HANDLE(g) \
  :: atomic{ up && ask[g]==1 -> FIRST_STEP(g); ask[g]=2 } \
  :: atomic{ up && ask[g]==2 -> SECOND_STEP(g); ask[g]=3 }
#ifdef NO_NOTED
#define FIRST_STEP(g) got[g]=version
#define SECOND_STEP(g) NOTE(g)
#else
#define FIRST_STEP(g) NOTE(g)
#define SECOND_STEP(g) got[g]=version
#endif
#define UNANSWERED(g) ask[g]=(ask[g]<3 -> 0 : ask[g])
#define NOT_SERVING(g) away[g]=(st[g]<SERVING && ask[g]<2)

active proctype Console() {
  do
  HANDLE(0)
  HANDLE(1)
  :: atomic{ up && !revoked -> version=1; revoked=1 }
  :: atomic{ up && revoked && version==1 && !done200 && CONFIRMED(0) && CONFIRMED(1) && SETTLED(0) && SETTLED(1)
       -> done200=1; NOT_SERVING(0); NOT_SERVING(1) }
  :: atomic{ up && row[0] && st[0]==DOWN && R(1)==1 -> row[0]=0 }      /* unseen for 10 minutes */
  :: atomic{ up && row[1] && st[1]==DOWN -> row[1]=0 }
  :: atomic{ up && F>0 -> F--; up=0; UNANSWERED(0); UNANSWERED(1) }
  :: atomic{ !up -> up=1; again[0]=0; again[1]=0 }
#ifdef NO_AGE
  :: atomic{ !up -> up=1; again[0]=0; again[1]=0; row[0]=0; row[1]=0 }
#endif
  :: atomic{ up && done200 && F>0 -> F--; version=0 }                  /* restored from a backup */
  od
}

init { atomic{ st[0]=STARTING; st[1]=STARTING; run Gateway(0); run Gateway(1) } }

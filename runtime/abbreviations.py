"""Words whose full stop need not end a sentence: English, German, French, Spanish, Portuguese
and Italian. Casefolded, without the last full stop."""

# ruff: noqa: SIM905  (a line of words is read and mended more easily than a list of strings)

from __future__ import annotations

# A name or a noun always follows.
NEVER_END = frozenset(
    """
    mr mrs mx dr prof rev fr hon gov gen col capt lt cmdr sgt maj pres sen rep messrs
    vs viz cf approx i.e e.g
    hr fr frl dipl.-ing z.b d.h u.a bzw bspw evtl ggf inkl vgl sog
    mme mlle dre ste p.ex c.-à-d
    sra srta sr dña lic ing arq
    dra exmo exma profa eng p.e v.g
    sig sig.ra dott dott.ssa avv p.es
    """.split()
)

# Abbreviations only when a number follows.
BEFORE_NUMBERS = frozenset(
    """
    no nos nr núm num n.º n.° fig figs eq eqs sec ch chap vol vols p pp pg art ref para tab abb abs
    s bd kap pág págs cap tel
    jan feb mar apr jun jul aug sep sept oct nov dec
    """.split()
)

# A sentence may end with them; it does when a word that begins one follows.
MAY_END = frozenset(
    """
    inc ltd co corp llc plc bros jr sr esq ph.d m.d b.a m.a etc usw a.m p.m dept univ ave blvd
    rd gmbh ag s.a s.l s.p.a ltda cia ms mm st mt ft ca al u.s u.k u.s.a e.u
    """.split()
)

# Words that, with a capital, begin a sentence rather than carry on a name.
STARTERS = frozenset(
    """
    A After All Also Although An And Another Any As At Because Before Both But By Did Do Does
    During Each Either Even Every For From Had Has Have He Her Here His How However I If In Is It
    Its Just Let Like Many Maybe Most My Neither No Nobody Not Nothing Now Of On Once One Only Or
    Other Our Perhaps Please She Since So Some Soon Still Such That The Their Then There These They
    This Those Though Thus To Today Until Was We Were What When Where Which While Who Why Will With
    Without Yes Yet You Your
    Aber Alle Als Am Auch Auf Bei Beim Da Dann Das Dass Dem Den Der Des Die Diese Dieser Doch Ein
    Eine Er Es Für Hier Ich Ihr Im Ist Man Mit Nach Nicht Nun Ob Oder Sie Seit So Und Viele Vom Von
    Vor Wann Warum Was Wenn Wer Wie Wir Wo Zu Zum
    Alors Après Au Aux Avec C Ce Ces Cet Cette Comme Dans De Depuis Des Donc Elle Elles En Et Il Ils
    J Je L La Le Les Leur Mais Mon Ne Nous On Ou Où Par Pour Puis Quand Que Qui Sa Sans Ses Si Son
    Sur Tous Tout Un Une Vous
    Al Antes Así Aunque Como Con Cuando De Desde Después El Ella Ellos En Entonces Era Es Esa Ese
    Esta Este Esto Fue Hay La Las Lo Los Mi Muchos Más No Nos Para Pero Por Porque Que Se Según Si
    Sin Sobre Su Sus También Tras Un Una Y Ya Yo
    A Ainda Ao As Assim Até Com Como Da Das De Depois Do Dos E Ela Ele Eles Em Então Essa Esse Esta
    Este Eu Foi Há Isso Isto Já Mais Mas Muitos Na Nas Nem No Nos Não Nós O Os Ou Para Pela Pelo
    Por Porque Quando Que Se Sem Seu Sua São Também Tem Todos Um Uma Você
    Al Anche Che Chi Ci Come Con Così Da Dal Dalla Del Della Di Dopo E Gli Ha I Il In Io La Le Lo
    Lui Ma Mentre Nel Nella Noi Non Ogni Per Perché Poi Qui Quando Questa Questo Se Si Sono Su Tra
    Tutti Un Una È
    """.split()
)

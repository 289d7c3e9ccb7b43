"""Every page of the console."""

from aiohttp import web

from services.console.pages.alerts import AlertPage, AlertsPage, BulkPage
from services.console.pages.base import Site
from services.console.pages.cases import CasePage
from services.console.pages.leads import LeadPage
from services.console.pages.lists import LISTS, ListPage
from services.console.pages.login import ConfirmPage, FactorPage, LoginRoutes, MePage
from services.console.pages.person import PersonPage
from services.console.pages.start import StartPage

# The lists first: one is at /console/leads/suspected, where a lead's id would be.
PAGES = (
    StartPage, AlertsPage, AlertPage, BulkPage, CasePage, LeadPage, PersonPage, ConfirmPage, MePage,
    FactorPage,
)  # fmt: skip


def add_to(app: web.Application, site: Site) -> None:
    LoginRoutes(site).add_to(app)
    for of in LISTS.values():
        ListPage(site, of).add_to(app)
    for page in PAGES:
        page(site).add_to(app)

// What was written and not sent, of each conversation, for as long as the tab is open.

export function keep(id, text) {
  try {
    if (text) sessionStorage.setItem(`draft:${id}`, text);
    else sessionStorage.removeItem(`draft:${id}`);
  } catch {
    // It is lost when another conversation is opened.
  }
}

export function of(id) {
  try {
    return sessionStorage.getItem(`draft:${id}`) ?? "";
  } catch {
    return "";
  }
}

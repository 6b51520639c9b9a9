-- The shop's own tables, beside yeondong's in the same file.

create table members (
  id integer primary key,
  orders integer not null default 0
);

create table products (
  id text primary key,
  title text,
  stock integer not null
);

create table orders (
  id text primary key,
  member_id integer not null references members,
  nth integer not null, -- of this member's orders
  product_id text not null references products,
  amount integer not null
);

-- Nothing below is unique on purpose: what keeps a repeated message out is the inbox, and the checker counts whether it did.

create table search_index (
  position integer primary key,
  order_id text not null,
  member_id integer not null,
  title text not null
);

create table sales (
  member_id integer primary key,
  orders integer not null,
  amount integer not null
);
